// The reader's side of a ring: packets that the peer wrote.
//
// Trust: indices, descriptors and payloads are the peer's. Each is loaded or
// copied once, checked as a local and used from there; our own index is kept
// here and never read back.
// Rules: README.md, shared/specs/vmbus.md sections 4.3 and 4.4.

#pragma once

#include <atomic>
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

// How a reader uses the ring's interrupt mask.
enum class InterruptMasking {
  kWhileBusy,  // masked from the start; cleared by Arm, set again by Mask
  kNever,      // never set, as the UEFI firmware does; Arm only looks again
};

// Reads packets in order. Space goes back to the peer with Consume, for all
// packets read so far at once.
//
// Thread safety: one strand.
// Bounds: a call handles one packet; nothing is allocated but on errors.
// Errors: kInvalidArgument is the peer's fault, and nothing has moved: stop
// using the ring.
//
// `Memory` is RingMemory, or what takes its place in the model check of the
// signal rules (signal_explorer.h).
template <typename Memory>
class BasicIncomingRing {
 public:
  // Takes the ring up where its control page says: indices that are not 0 are
  // honoured, packets that are there already are read.
  //
  // Errors: kInvalidArgument when an index is not below the data area's size
  // or not a multiple of 8.
  static absl::StatusOr<BasicIncomingRing> Open(
      Memory memory, InterruptMasking masking = InterruptMasking::kWhileBusy);

  // The next packet, checked, which stays the next one until Advance; nullopt
  // when the ring is empty.
  absl::StatusOr<std::optional<PacketView>> Peek();

  // Copies payload bytes of the packet that Peek returned. Each byte should be
  // copied once only: a second copy may differ.
  // REQUIRES: the bytes lie within the packet's payload.
  void CopyPayload(const PacketView& packet, size_t offset, std::span<std::byte> to) const;

  // Overwrites payload bytes of the packet that Peek returned, where it lies: a
  // note for whoever opens this ring after us. Never read it back as our own.
  // REQUIRES: the bytes lie within the packet's payload.
  void RewritePayload(const PacketView& packet, size_t offset, std::span<const std::byte> from);

  // Goes on to the packet behind the one that Peek returned.
  void Advance(const PacketView& packet);

  struct Packet {
    PacketView view;
    std::span<std::byte> payload;  // within the caller's buffer
  };
  // Peek, CopyPayload of all of it and Advance in one.
  //
  // Errors: kResourceExhausted also, when the payload is larger than `buffer`.
  absl::StatusOr<std::optional<Packet>> Read(std::span<std::byte> buffer);

  // Gives the space of all packets advanced over back to the peer. true: the
  // peer waits for space and has enough now; signal it.
  [[nodiscard]] bool Consume();

  // Before sleeping: asks the peer to signal the next packet. Returns true when
  // one is there already and its signal may never come.
  // REQUIRES: Consume was called for what was read.
  absl::StatusOr<bool> Arm();

  // No signals wanted until the next Arm: the caller comes back by itself.
  void Mask();

  // Whether the peer signals us when it reads from the ring we write and we
  // wait for space. If not, a waiting writer must look by a timer.
  bool PeerHonoursPendingSendSize() const;

  // Where the next packet is read, and up to where space was given back.
  uint32_t cursor() const { return cursor_; }
  uint32_t out() const { return out_; }
  // The peer's index as last seen, and the mask as last written.
  uint32_t in() const { return in_; }
  bool masked() const { return masked_; }
  uint32_t data_bytes() const { return memory_.data_bytes(); }

  // Advanced over since Open; bytes with descriptors and trailers.
  uint64_t packets() const { return packets_; }
  uint64_t bytes() const { return bytes_; }

 private:
  BasicIncomingRing(Memory memory, InterruptMasking masking, uint32_t in, uint32_t out)
      : memory_(std::move(memory)),
        masking_(masking),
        masked_(masking == InterruptMasking::kWhileBusy),
        in_(in),
        cursor_(out),
        out_(out) {}

  absl::Status ReloadIn(std::memory_order order);
  absl::StatusOr<PacketView> ParseAtCursor(uint32_t available_bytes) const;
  // Copies a header out of the ring: once, and what is used is the copy.
  template <typename Header>
  Header CopyHeader(uint32_t offset) const;
  uint32_t At(size_t bytes_behind_cursor) const;

  Memory memory_;
  InterruptMasking masking_;
  bool masked_;      // the mask as last written
  uint32_t in_;      // the peer's index as last seen, checked
  uint32_t cursor_;  // where the next packet starts
  uint32_t out_;     // as published
  uint64_t packets_ = 0;
  uint64_t bytes_ = 0;
};

extern template class BasicIncomingRing<RingMemory>;
using IncomingRing = BasicIncomingRing<RingMemory>;

}  // namespace vmbfs::hyperv
