// The writer's side of a ring: packets for the peer.
//
// Trust: the peer's index is checked each time it is loaded; nothing that was
// written is read back, so the peer may scribble over it.
// Rules: README.md, shared/specs/vmbus.md section 4.3.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/packet/packet.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

// Writes in-band packets: Reserve, put the payload in place, Commit, and
// Publish once for one or several committed packets.
//
// Thread safety: one strand.
// Bounds: a packet takes less than data_bytes() - 8 of the ring; no call
// allocates but on errors.
// Errors: kInvalidArgument is the peer's fault, and nothing has moved: stop
// using the ring.
//
// `Memory` as for BasicIncomingRing.
template <typename Memory>
class BasicOutgoingRing {
 public:
  // Takes the ring up where its control page says, and announces that its
  // reader on our side honours pending send sizes.
  //
  // Errors: kInvalidArgument when an index is not below the data area's size
  // or not a multiple of 8.
  static absl::StatusOr<BasicOutgoingRing> Open(Memory memory);

  // The largest payload that may be reserved.
  size_t payload_bytes_max() const;

  // Reserves room for an in-band packet with up to `payload_bytes`; false when
  // the ring has too little now. The peer sees nothing before Publish. A new
  // reservation replaces one that was not committed.
  // REQUIRES: payload_bytes <= payload_bytes_max().
  absl::StatusOr<bool> Reserve(size_t payload_bytes);

  // Where `bytes` of the reserved payload from `offset` on lie, for writing in
  // place; returns how many pieces. See RingMemory::Pieces for their number.
  // REQUIRES: they lie within the reservation.
  size_t Pieces(size_t offset, size_t bytes, std::span<iovec> pieces) const;

  // Copies `from` to `offset` of the reserved payload.
  // REQUIRES: it lies within the reservation.
  void CopyIn(size_t offset, std::span<const std::byte> from);

  // Ends the reservation with a packet of its first `payload_bytes`: writes
  // descriptor, padding and trailer.
  // REQUIRES: a reservation of at least so many bytes.
  void Commit(size_t payload_bytes, uint64_t transaction_id = 0);

  // Makes all committed packets visible. true: the reader had drained the ring
  // and sleeps; signal it.
  [[nodiscard]] bool Publish();

  // Before waiting for space: asks the peer for a signal when a packet with
  // `payload_bytes` fits. Returns true when it fits already.
  // REQUIRES: payload_bytes <= payload_bytes_max(); all commits are published.
  absl::StatusOr<bool> RequestSpace(size_t payload_bytes);

  // Takes RequestSpace back; nothing happens when none is under way.
  void ClearSpaceRequest();
  bool space_requested() const { return space_requested_; }

  // Where the next packet goes, and up to where the peer was told.
  uint32_t cursor() const { return cursor_; }
  uint32_t in() const { return in_; }
  uint32_t data_bytes() const { return memory_.data_bytes(); }

  // Committed since Open; bytes with descriptors and trailers.
  uint64_t packets() const { return packets_; }
  uint64_t bytes() const { return bytes_; }

 private:
  BasicOutgoingRing(Memory memory, uint32_t in)
      : memory_(std::move(memory)), in_(in), cursor_(in) {}

  absl::StatusOr<bool> Fits(size_t payload_bytes) const;
  // Where a part of the reserved payload starts in the data area.
  uint32_t Reserved(size_t offset, size_t bytes) const;
  uint32_t At(size_t bytes_behind_cursor) const;

  Memory memory_;
  uint32_t in_;      // as published
  uint32_t cursor_;  // where the next packet starts
  std::optional<size_t> reserved_payload_bytes_;
  bool space_requested_ = false;
  uint64_t packets_ = 0;
  uint64_t bytes_ = 0;
};

extern template class BasicOutgoingRing<RingMemory>;
using OutgoingRing = BasicOutgoingRing<RingMemory>;

}  // namespace vmbfs::hyperv
