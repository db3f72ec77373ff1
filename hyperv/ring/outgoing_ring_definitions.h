// What outgoing_ring.h declares. Included where the template is instantiated:
// outgoing_ring.cc and the model check.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "hyperv/ring/outgoing_ring.h"

namespace vmbfs::hyperv {

template <typename Memory>
absl::StatusOr<BasicOutgoingRing<Memory>> BasicOutgoingRing<Memory>::Open(Memory memory) {
  const auto in = memory.LoadIndex(ControlWord::kIn, std::memory_order_relaxed);
  if (!in.ok()) return in.status();
  const auto out = memory.LoadIndex(ControlWord::kOut, std::memory_order_acquire);
  if (!out.ok()) return out.status();
  memory.Store(ControlWord::kPendingSendSize, 0, std::memory_order_relaxed);
  memory.Store(ControlWord::kFeatureBits, kRingFeaturePendingSendSize, std::memory_order_release);
  return BasicOutgoingRing(std::move(memory), *in);
}

template <typename Memory>
size_t BasicOutgoingRing<Memory>::payload_bytes_max() const {
  // A packet of data_bytes() - 8 would fill the ring; some readers refuse it.
  const size_t ring_bytes_max = memory_.data_bytes() - 2 * kRingUnitBytes;
  return std::min(ring_bytes_max - kPacketBytesMin, kPacketPayloadBytesMax);
}

template <typename Memory>
uint32_t BasicOutgoingRing<Memory>::At(size_t bytes_behind_cursor) const {
  return RingOffset(cursor_, bytes_behind_cursor, memory_.data_bytes());
}

template <typename Memory>
absl::StatusOr<bool> BasicOutgoingRing<Memory>::Fits(size_t payload_bytes) const {
  if (payload_bytes > payload_bytes_max()) std::abort();
  const auto out = memory_.LoadIndex(ControlWord::kOut, std::memory_order_seq_cst);
  if (!out.ok()) return out.status();
  return InBandRingBytes(payload_bytes) <= RingFreeBytes(cursor_, *out, memory_.data_bytes());
}

template <typename Memory>
absl::StatusOr<bool> BasicOutgoingRing<Memory>::Reserve(size_t payload_bytes) {
  reserved_payload_bytes_.reset();
  absl::StatusOr<bool> fits = Fits(payload_bytes);
  if (fits.ok() && *fits) reserved_payload_bytes_ = payload_bytes;
  return fits;
}

template <typename Memory>
uint32_t BasicOutgoingRing<Memory>::Reserved(size_t offset, size_t bytes) const {
  if (!reserved_payload_bytes_ || offset > *reserved_payload_bytes_ ||
      bytes > *reserved_payload_bytes_ - offset) {
    std::abort();
  }
  return At(sizeof(PacketDescriptor) + offset);
}

template <typename Memory>
size_t BasicOutgoingRing<Memory>::Pieces(size_t offset, size_t bytes,
                                         std::span<iovec> pieces) const {
  return memory_.Pieces(Reserved(offset, bytes), bytes, pieces);
}

template <typename Memory>
void BasicOutgoingRing<Memory>::CopyIn(size_t offset, std::span<const std::byte> from) {
  memory_.CopyIn(Reserved(offset, from.size()), from);
}

template <typename Memory>
void BasicOutgoingRing<Memory>::Commit(size_t payload_bytes, uint64_t transaction_id) {
  const uint32_t payload_start = Reserved(0, payload_bytes);
  using DescriptorBytes = std::array<std::byte, sizeof(PacketDescriptor)>;
  memory_.CopyIn(cursor_,
                 std::bit_cast<DescriptorBytes>(InBandDescriptor(payload_bytes, transaction_id)));

  // Padding and trailer lie side by side: one copy.
  const size_t padding_bytes = RoundUpToPacketUnit(payload_bytes) - payload_bytes;
  std::array<std::byte, kPacketUnitBytes + sizeof(PacketTrailer)> tail{};
  const auto trailer =
      std::bit_cast<std::array<std::byte, sizeof(PacketTrailer)>>(TrailerOf(cursor_));
  std::copy(trailer.begin(), trailer.end(), tail.begin() + padding_bytes);
  memory_.CopyIn(RingOffset(payload_start, payload_bytes, memory_.data_bytes()),
                 std::span(tail).first(padding_bytes + sizeof(PacketTrailer)));

  const size_t ring_bytes = InBandRingBytes(payload_bytes);
  cursor_ = At(ring_bytes);
  reserved_payload_bytes_.reset();
  ++packets_;
  bytes_ += ring_bytes;
}

template <typename Memory>
bool BasicOutgoingRing<Memory>::Publish() {
  if (cursor_ == in_) return false;
  const uint32_t old_in = std::exchange(in_, cursor_);
  memory_.Store(ControlWord::kIn, in_, std::memory_order_seq_cst);
  if (memory_.Load(ControlWord::kInterruptMask, std::memory_order_seq_cst) != 0) return false;
  // The reader had read everything up to what it knew of. An `out` that is no
  // index is no equal either; the next Reserve refuses it.
  return memory_.Load(ControlWord::kOut, std::memory_order_seq_cst) == old_in;
}

template <typename Memory>
absl::StatusOr<bool> BasicOutgoingRing<Memory>::RequestSpace(size_t payload_bytes) {
  // Asking for a quarter at least spares both sides a signal for each packet.
  const size_t possible_bytes = memory_.data_bytes() - kRingUnitBytes;
  const size_t quarter_bytes = RoundUpToPacketUnit(possible_bytes / 4);
  const size_t wanted_bytes =
      std::min(std::max(InBandRingBytes(payload_bytes), quarter_bytes), possible_bytes);
  memory_.Store(ControlWord::kPendingSendSize, static_cast<uint32_t>(wanted_bytes),
                std::memory_order_seq_cst);
  space_requested_ = true;
  return Fits(payload_bytes);
}

template <typename Memory>
void BasicOutgoingRing<Memory>::ClearSpaceRequest() {
  if (!space_requested_) return;
  memory_.Store(ControlWord::kPendingSendSize, 0, std::memory_order_relaxed);
  space_requested_ = false;
}

}  // namespace vmbfs::hyperv
