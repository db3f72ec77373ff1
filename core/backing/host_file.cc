#include "core/backing/host_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

// As many pieces as one call fills: those of a ring message, or of a slice of
// scattered pages. Fewer bytes than asked are a legal answer to more pieces.
constexpr size_t kPiecesMax = 128;

absl::Status HostReadError(int error, uint64_t offset) {
  return absl::ErrnoToStatus(error, absl::StrCat("host file: read at offset ", offset, " failed"));
}

absl::Status ShrunkError(uint64_t offset, uint64_t size_bytes) {
  return absl::DataLossError(absl::StrCat("host file: it ends at or before offset ", offset,
                                          " but had ", size_bytes,
                                          " bytes when it was opened; it was cut short since"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostFile>> HostFile::Create(hyperv::UniqueFd fd) {
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) {
    return absl::InternalError(absl::ErrnoToStatus(errno, "host file: fstat failed").message());
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError("host file: not a regular file; give one");
  }
  return std::unique_ptr<HostFile>(
      new HostFile(std::move(fd), static_cast<uint64_t>(info.st_size)));
}

absl::StatusOr<size_t> HostFile::ReadNow(uint64_t offset, std::span<const iovec> pieces) const {
  const absl::Status unavailable(absl::StatusCode::kUnavailable, "");
  if (!read_now_supported_.load(std::memory_order_relaxed)) return unavailable;

  std::array<iovec, kPiecesMax> clamped;
  size_t piece_count = 0;
  uint64_t rest = size_bytes_ - offset;
  for (const iovec& piece : pieces.first(std::min(pieces.size(), kPiecesMax))) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(piece.iov_len, rest));
    if (count == 0) continue;
    clamped[piece_count++] = {piece.iov_base, count};
    rest -= count;
  }
  if (piece_count == 0) return 0;

  while (true) {
    const ssize_t count = preadv2(fd_.get(), clamped.data(), static_cast<int>(piece_count),
                                  static_cast<off_t>(offset), RWF_NOWAIT);
    if (count > 0) return static_cast<size_t>(count);
    if (count == 0) return ShrunkError(offset, size_bytes_);
    switch (errno) {
      case EINTR:
        continue;
      case EAGAIN:
      case EFAULT:  // guest memory that vanished: the copy into it that follows finds that out
        return unavailable;
      case EOPNOTSUPP:
        read_now_supported_.store(false, std::memory_order_relaxed);
        return unavailable;
      default:
        return HostReadError(errno, offset);
    }
  }
}

absl::StatusOr<size_t> HostFile::ReadBlocking(uint64_t offset, std::span<std::byte> out) const {
  out = out.first(static_cast<size_t>(std::min<uint64_t>(out.size(), size_bytes_ - offset)));
  size_t read_bytes = 0;
  while (read_bytes < out.size()) {
    const uint64_t at = offset + read_bytes;
    const ssize_t count =
        pread(fd_.get(), out.data() + read_bytes, out.size() - read_bytes, static_cast<off_t>(at));
    if (count == 0) return ShrunkError(at, size_bytes_);
    if (count < 0 && errno != EINTR) return HostReadError(errno, at);
    if (count > 0) read_bytes += static_cast<size_t>(count);
  }
  return read_bytes;
}

void HostFile::ReadAhead(uint64_t offset, uint64_t bytes) const {
  bytes = std::min(bytes, size_bytes_ - offset);
  posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(bytes),
                POSIX_FADV_WILLNEED);
}

}  // namespace vmbfs
