// A test guest's RAM: one sealed memfd from guest physical address 0, and the
// allocator of its pages.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {

enum class RamLayout {
  kContiguous,  // consecutive page frames, as the firmware's rings have
  kScattered,   // no two neighbours side by side while RAM allows it
};

// Thread safety: one thread allocates; the bytes are shared with the server.
// Ownership: pages belong to the guest for its life; Free takes them back.
// Bounds: `bytes` of Create, at most kBytesMax. Page 0 is never handed out: as
// an address in a message it means "none".
class GuestRam {
 public:
  static constexpr uint64_t kBytesMax = uint64_t{1} << 32;

  // Errors: kInvalidArgument  no whole pages, none, or more than kBytesMax;
  //         any other         the system's own reason.
  static absl::StatusOr<std::unique_ptr<GuestRam>> Create(uint64_t bytes);
  ~GuestRam();
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  // The memfd, sealed against shrinking and growing.
  int fd() const { return fd_.get(); }
  std::span<std::byte> bytes() const { return bytes_; }

  // REQUIRES: page_frame is within RAM.
  std::span<std::byte> Page(uint64_t page_frame) const;

  // Page frames (guest physical address >> 12) for `count` pages; what they
  // hold is what their last user left.
  // Errors: kResourceExhausted.
  absl::StatusOr<std::vector<uint64_t>> Allocate(size_t count, RamLayout layout);

  // REQUIRES: they came from Allocate and are not free.
  void Free(std::span<const uint64_t> page_frames);

 private:
  GuestRam(UniqueFd fd, std::span<std::byte> bytes);

  UniqueFd fd_;
  std::span<std::byte> bytes_;
  std::vector<bool> used_;  // by page frame
};

// Pages that go back to their RAM with the last holder.
class GuestPages {
 public:
  GuestPages(GuestRam& ram, std::vector<uint64_t> page_frames)
      : ram_(ram), page_frames_(std::move(page_frames)) {}
  GuestPages(const GuestPages&) = delete;
  GuestPages& operator=(const GuestPages&) = delete;
  ~GuestPages() { ram_.Free(page_frames_); }

  std::span<const uint64_t> page_frames() const { return page_frames_; }
  std::span<std::byte> Page(size_t index) const { return ram_.Page(page_frames_[index]); }

 private:
  GuestRam& ram_;
  const std::vector<uint64_t> page_frames_;
};

}  // namespace vmbfs::hyperv
