// What incoming_ring.h declares. Included where the template is instantiated:
// incoming_ring.cc and the model check.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "hyperv/ring/incoming_ring.h"

namespace vmbfs::hyperv {

template <typename Memory>
absl::StatusOr<BasicIncomingRing<Memory>> BasicIncomingRing<Memory>::Open(
    Memory memory, InterruptMasking masking) {
  const auto in = memory.LoadIndex(ControlWord::kIn, std::memory_order_acquire);
  if (!in.ok()) return in.status();
  const auto out = memory.LoadIndex(ControlWord::kOut, std::memory_order_relaxed);
  if (!out.ok()) return out.status();
  BasicIncomingRing ring(std::move(memory), masking, *in, *out);
  // Fenced: a reader that never masks may arm and sleep next, and a reader
  // before it may have left the mask set.
  ring.memory_.Store(ControlWord::kInterruptMask, ring.masked_ ? 1 : 0, std::memory_order_seq_cst);
  return ring;
}

template <typename Memory>
uint32_t BasicIncomingRing<Memory>::At(size_t bytes_behind_cursor) const {
  return RingOffset(cursor_, bytes_behind_cursor, memory_.data_bytes());
}

template <typename Memory>
absl::Status BasicIncomingRing<Memory>::ReloadIn(std::memory_order order) {
  const auto in = memory_.LoadIndex(ControlWord::kIn, order);
  if (in.ok()) in_ = *in;
  return in.status();
}

template <typename Memory>
absl::StatusOr<std::optional<PacketView>> BasicIncomingRing<Memory>::Peek() {
  if (cursor_ == in_) {
    if (absl::Status status = ReloadIn(std::memory_order_acquire); !status.ok()) return status;
    if (cursor_ == in_) return std::nullopt;
  }
  const uint32_t available = RingUsedBytes(in_, cursor_, memory_.data_bytes());
  absl::StatusOr<PacketView> packet = ParseAtCursor(available);
  if (!packet.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("incoming ring at offset ", cursor_, " of ",
                                                   memory_.data_bytes(), ": ",
                                                   packet.status().message()));
  }
  return std::optional<PacketView>(*packet);
}

template <typename Memory>
template <typename Header>
Header BasicIncomingRing<Memory>::CopyHeader(uint32_t offset) const {
  std::array<std::byte, sizeof(Header)> bytes;
  memory_.CopyOut(offset, bytes);
  return std::bit_cast<Header>(bytes);
}

template <typename Memory>
absl::StatusOr<PacketView> BasicIncomingRing<Memory>::ParseAtCursor(
    uint32_t available_bytes) const {
  if (available_bytes < kPacketBytesMin) {
    return absl::InvalidArgumentError(absl::StrCat(
        available_bytes, " bytes are available; a packet has at least ", kPacketBytesMin));
  }
  absl::StatusOr<PacketView> packet =
      ParsePacket(CopyHeader<PacketDescriptor>(cursor_), available_bytes);
  if (!packet.ok()) return packet;

  const uint32_t extra_offset = At(sizeof(PacketDescriptor));
  absl::Status extra;
  if (packet->type == PacketType::kTransferPages) {
    extra = CheckTransferPages(*packet, CopyHeader<TransferPagesHeader>(extra_offset));
  } else if (packet->type == PacketType::kGpaDirect) {
    extra = CheckGpaDirect(*packet, CopyHeader<GpaDirectHeader>(extra_offset));
  }
  if (!extra.ok()) return extra;
  return packet;
}

template <typename Memory>
void BasicIncomingRing<Memory>::CopyPayload(const PacketView& packet, size_t offset,
                                            std::span<std::byte> to) const {
  if (offset > packet.payload_bytes || to.size() > packet.payload_bytes - offset) std::abort();
  memory_.CopyOut(At(packet.payload_offset_bytes + offset), to);
}

template <typename Memory>
void BasicIncomingRing<Memory>::RewritePayload(const PacketView& packet, size_t offset,
                                               std::span<const std::byte> from) {
  if (offset > packet.payload_bytes || from.size() > packet.payload_bytes - offset) std::abort();
  memory_.CopyIn(At(packet.payload_offset_bytes + offset), from);
}

template <typename Memory>
void BasicIncomingRing<Memory>::Advance(const PacketView& packet) {
  cursor_ = At(packet.ring_bytes);
  ++packets_;
  bytes_ += packet.ring_bytes;
}

template <typename Memory>
absl::StatusOr<std::optional<typename BasicIncomingRing<Memory>::Packet>>
BasicIncomingRing<Memory>::Read(std::span<std::byte> buffer) {
  absl::StatusOr<std::optional<PacketView>> packet = Peek();
  if (!packet.ok()) return packet.status();
  if (!packet->has_value()) return std::nullopt;
  const PacketView& view = **packet;
  if (view.payload_bytes > buffer.size()) {
    return absl::ResourceExhaustedError(absl::StrCat("incoming ring at offset ", cursor_,
                                                     ": payload of ", view.payload_bytes,
                                                     " bytes, buffer of ", buffer.size()));
  }
  const std::span<std::byte> payload = buffer.first(view.payload_bytes);
  CopyPayload(view, 0, payload);
  Advance(view);
  return Packet{view, payload};
}

template <typename Memory>
bool BasicIncomingRing<Memory>::Consume() {
  if (cursor_ == out_) return false;
  const uint32_t old_out = std::exchange(out_, cursor_);
  memory_.Store(ControlWord::kOut, out_, std::memory_order_seq_cst);

  // The firmware waits for size - 1, meaning "completely empty", hence the
  // rounding. A wait never depends on the interrupt mask.
  const uint32_t guest_pending =
      memory_.Load(ControlWord::kPendingSendSize, std::memory_order_seq_cst);
  const uint32_t pending = RoundDownToRingUnit(guest_pending);
  if (pending == 0) return false;
  // A broken index ends the channel at the next Peek; a signal does no harm.
  const auto in = memory_.LoadIndex(ControlWord::kIn, std::memory_order_seq_cst);
  if (!in.ok()) return true;
  const uint32_t old_free = RingFreeBytes(*in, old_out, memory_.data_bytes());
  const uint32_t new_free = RingFreeBytes(*in, out_, memory_.data_bytes());
  return old_free < pending && new_free >= pending;
}

template <typename Memory>
absl::StatusOr<bool> BasicIncomingRing<Memory>::Arm() {
  if (masking_ == InterruptMasking::kWhileBusy) {
    memory_.Store(ControlWord::kInterruptMask, 0, std::memory_order_seq_cst);
    masked_ = false;
  }
  // With kNever the fence that must precede this load is Consume's.
  if (absl::Status status = ReloadIn(std::memory_order_seq_cst); !status.ok()) return status;
  return cursor_ != in_;
}

template <typename Memory>
void BasicIncomingRing<Memory>::Mask() {
  if (masked_ || masking_ == InterruptMasking::kNever) return;
  memory_.Store(ControlWord::kInterruptMask, 1, std::memory_order_relaxed);
  masked_ = true;
}

template <typename Memory>
bool BasicIncomingRing<Memory>::PeerHonoursPendingSendSize() const {
  return (memory_.Load(ControlWord::kFeatureBits, std::memory_order_relaxed) &
          kRingFeaturePendingSendSize) != 0;
}

}  // namespace vmbfs::hyperv
