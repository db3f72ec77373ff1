// The buffers a guest registered on a pipe for the host to write into (RDMA).
//
// Trust: messages are the guest's and come as private copies. What is in the
// table is well formed; whether its pages exist is known when they are mapped.
// Format: pipe_format.h; rules: shared/specs/vmbus.md sections 3.7 and 5.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/gpadl/range_list.h"

namespace vmbfs::hyperv {

// A part of a registered buffer, range by range in the buffer's order.
//
// Ownership: refers to its registration, which the next SetUp or TearDown may
// take away: use it up before.
class GpaDirectPart {
 public:
  // Exactly the pages, and the bytes in them, that come next; nullopt at the end.
  std::optional<PageRange> Next();

 private:
  friend class GpaDirectTable;
  GpaDirectPart(const PageRanges& ranges, uint64_t offset, uint64_t byte_count);

  const PageRanges* ranges_;
  size_t index_ = 0;
  uint64_t skipped_bytes_;  // at the start of range index_, below its size
  uint64_t left_bytes_;
};

// Registrations of one channel, by the handles their guest chose.
//
// Thread safety: one strand.
// Bounds: the constants below; 32 bytes a page at most, when each is a range.
class GpaDirectTable {
 public:
  static constexpr size_t kRegistrationsMax = 64;
  // The firmware asks for 7 MiB at most: 1,793 pages where it does not begin on
  // one, and one more in case it comes in two such ranges.
  static constexpr size_t kPagesOfOneMax = 1794;
  // Over all registrations: 64 MiB, nine of the firmware's largest.
  static constexpr size_t kPagesMax = 16'384;

  // Handles the data of a SETUP: registers a buffer, in place of the one that
  // has its handle. A buffer beyond the bounds is not registered, which is
  // counted; its handle is unknown then.
  //
  // Errors (nothing has changed): kInvalidArgument when the message is
  // malformed: fault the channel.
  absl::Status SetUp(std::span<const std::byte> data);

  // Handles the data of a TEARDOWN. One of an unknown handle is counted.
  //
  // Errors: as SetUp.
  absl::Status TearDown(std::span<const std::byte> data);

  // The `byte_count` bytes that begin `offset` bytes into the buffer, for the
  // host to write.
  //
  // Errors (answer the request with status 3): kNotFound: no such handle;
  // kPermissionDenied: not writable; kOutOfRange: beyond the buffer.
  absl::StatusOr<GpaDirectPart> FindWritable(uint32_t handle, uint64_t offset,
                                             uint64_t byte_count) const;

  size_t count() const { return registrations_.size(); }
  size_t page_count() const { return page_count_; }
  uint64_t refused() const { return refused_; }
  uint64_t unknown_tear_downs() const { return unknown_tear_downs_; }

 private:
  struct Registration {
    bool writable = false;
    uint64_t byte_count = 0;
    PageRanges ranges;
  };

  bool Fits(const PageRanges& ranges) const;
  bool Erase(uint32_t handle);

  std::map<uint32_t, Registration> registrations_;
  size_t page_count_ = 0;
  uint64_t refused_ = 0;
  uint64_t unknown_tear_downs_ = 0;
};

}  // namespace vmbfs::hyperv
