#include "hyperv/guest_memory/double_mapping.h"

#include <sys/mman.h>
#include <sys/types.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

absl::Status MapError(int error) {
  const std::string reason = absl::StrCat("mapping pages twice: ", std::strerror(error));
  return error == ENOMEM || error == EAGAIN ? absl::ResourceExhaustedError(reason)
                                            : absl::UnimplementedError(reason);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const DoubleMapping>> DoubleMapping::Make(
    std::span<const FilePiece> pieces, MappingBudget& budget) {
  if (pieces.size() > kPiecesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(pieces.size(), " pieces of memory; at most ",
                                                     kPiecesMax, " are mapped twice"));
  }
  std::vector<MappingBudget::Share> shares;
  size_t bytes = 0;
  for (const FilePiece& piece : pieces) {
    bytes += piece.bytes;
    for (int copy = 0; copy < 2; ++copy) {
      std::optional<MappingBudget::Share> share = budget.Take();
      if (!share) return absl::ResourceExhaustedError("all mappings for rings are taken");
      shares.push_back(*std::move(share));
    }
  }
  // The place first, so that the pieces find one whole.
  void* const place =
      ::mmap(nullptr, 2 * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return MapError(errno);
  const std::shared_ptr<DoubleMapping> mapping(
      new DoubleMapping(static_cast<std::byte*>(place), bytes));
  mapping->shares_ = std::move(shares);
  std::byte* at = mapping->data_;
  for (int copy = 0; copy < 2; ++copy) {
    for (const FilePiece& piece : pieces) {
      if (::mmap(at, piece.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, piece.fd,
                 static_cast<off_t>(piece.offset)) == MAP_FAILED) {
        return MapError(errno);
      }
      at += piece.bytes;
    }
  }
  // A guest's memory belongs in no core dump.
  ::madvise(place, 2 * bytes, MADV_DONTDUMP);
  return mapping;
}

DoubleMapping::~DoubleMapping() { ::munmap(data_, 2 * bytes_); }

bool DoubleMapping::Missed(const VanishedMemoryWatch& watch, size_t offset, size_t bytes) const {
  const uintptr_t first = reinterpret_cast<uintptr_t>(data_) + offset;
  return watch.MissedIn(first, bytes) != 0 || watch.MissedIn(first + bytes_, bytes) != 0;
}

}  // namespace vmbfs::hyperv
