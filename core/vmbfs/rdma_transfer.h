// An RDMA read under way: from a file into the pages its guest registered.
//
// Trust: the registration and the request are the guest's; pages are looked up
// in its memory slice by slice, so that what the VMM takes away meanwhile is
// not written to. Rules: shared/specs/vmbfs.md; README.md.

#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/vmbfs/session.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/pipe/gpa_direct_table.h"

namespace vmbfs {

// Thread safety: the VM's strand.
// Ownership: refers to `table` and `memory`, which must outlive it. While it
// lives no message of the guest's is taken, so that the table stays as it is.
class RdmaTransfer {
 public:
  // Bytes of a turn.
  static constexpr size_t kSliceBytesMax = 256 << 10;

  // Errors (answer with status 3; nothing was written): the registration is
  // missing, not writable or too small, or a page of the buffer is no memory.
  static absl::StatusOr<RdmaTransfer> Start(const RdmaRead& read,
                                            const hyperv::GpaDirectTable& table,
                                            const hyperv::GuestMemory& memory);

  bool done() const { return done_bytes_ == read_.byte_count; }
  const RdmaRead& read() const { return read_; }
  uint64_t file_offset() const { return read_.offset + done_bytes_; }
  uint64_t left_bytes() const { return read_.byte_count - done_bytes_; }

  // Where the next bytes go: at most `bytes_max` of them, and no more than have
  // room in the pieces. The pieces hold until the turn ends.
  // REQUIRES: not done; 0 < bytes_max <= kSliceBytesMax.
  // Errors: as Start.
  struct Slice {
    static constexpr size_t kPiecesMax = 128;
    std::array<iovec, kPiecesMax> pieces;
    size_t piece_count = 0;
    size_t bytes = 0;

    std::span<const iovec> span() const { return {pieces.data(), piece_count}; }
  };
  absl::Status FindSlice(size_t bytes_max, Slice& slice) const;

  // The next `bytes` are there.
  void Advance(size_t bytes) { done_bytes_ += bytes; }

 private:
  RdmaTransfer(const RdmaRead& read, const hyperv::GpaDirectTable& table,
               const hyperv::GuestMemory& memory)
      : read_(read), table_(&table), memory_(&memory) {}

  RdmaRead read_;
  const hyperv::GpaDirectTable* table_;
  const hyperv::GuestMemory* memory_;
  uint64_t done_bytes_ = 0;
};

}  // namespace vmbfs
