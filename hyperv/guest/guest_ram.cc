#include "hyperv/guest/guest_ram.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// Between scattered pages; with it no two of them are neighbours.
constexpr size_t kScatterPages = 3;

}  // namespace

absl::StatusOr<std::unique_ptr<GuestRam>> GuestRam::Create(uint64_t bytes) {
  if (bytes == 0 || bytes % kPageBytes != 0 || bytes > kBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "guest RAM of ", bytes, " bytes; whole pages, 1 to ", kBytesMax, " bytes, are needed"));
  }
  UniqueFd fd(memfd_create("vmbfs-guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return absl::ErrnoToStatus(errno, "memfd_create for guest RAM");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return absl::ErrnoToStatus(errno, "ftruncate of guest RAM");
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    return absl::ErrnoToStatus(errno, "sealing guest RAM");
  }
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of guest RAM");
  return std::unique_ptr<GuestRam>(
      new GuestRam(std::move(fd), {static_cast<std::byte*>(address), static_cast<size_t>(bytes)}));
}

GuestRam::GuestRam(UniqueFd fd, std::span<std::byte> bytes)
    : fd_(std::move(fd)), bytes_(bytes), used_(bytes.size() / kPageBytes) {
  used_[0] = true;
}

GuestRam::~GuestRam() { munmap(bytes_.data(), bytes_.size()); }

std::span<std::byte> GuestRam::Page(uint64_t page_frame) const {
  return bytes_.subspan(page_frame * kPageBytes, kPageBytes);
}

absl::StatusOr<std::vector<uint64_t>> GuestRam::Allocate(size_t count, RamLayout layout) {
  std::vector<uint64_t> page_frames;
  if (layout == RamLayout::kContiguous) {
    for (uint64_t frame = 1; frame < used_.size() && page_frames.size() < count; ++frame) {
      if (used_[frame]) {
        page_frames.clear();
      } else {
        page_frames.push_back(frame);
      }
    }
  } else {
    for (size_t phase = 0; phase < kScatterPages; ++phase) {
      for (uint64_t frame = phase + 1; frame < used_.size(); frame += kScatterPages) {
        if (page_frames.size() == count) break;
        if (!used_[frame]) page_frames.push_back(frame);
      }
    }
  }
  if (page_frames.size() < count) {
    return absl::ResourceExhaustedError(absl::StrCat("guest RAM has no ", count, " free pages"));
  }
  for (uint64_t frame : page_frames) used_[frame] = true;
  return page_frames;
}

void GuestRam::Free(std::span<const uint64_t> page_frames) {
  for (uint64_t frame : page_frames) used_[frame] = false;
}

}  // namespace vmbfs::hyperv
