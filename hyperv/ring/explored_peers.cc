#include "hyperv/ring/explored_peers.h"

#include <array>
#include <atomic>
#include <bit>
#include <utility>

namespace vmbfs::hyperv {
namespace {

constexpr auto kPlain = std::memory_order_relaxed;

template <typename Wire>
std::array<std::byte, sizeof(Wire)> BytesOf(const Wire& wire) {
  return std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire);
}

}  // namespace

PeerWriter::PeerWriter(ExploredMemory memory, RingCode code)
    : memory_(memory), code_(code), in_(memory_.Load(ControlWord::kIn, kPlain)), cursor_(in_) {}

absl::StatusOr<bool> PeerWriter::Reserve(size_t payload_bytes) {
  const uint32_t size = memory_.data_bytes();
  const uint32_t used = RingUsedBytes(cursor_, memory_.Load(ControlWord::kOut, kPlain), size);
  const size_t wanted = InBandRingBytes(payload_bytes);
  return code_ == RingCode::kFirmware ? size - used - 1 >= wanted : size - used > wanted;
}

void PeerWriter::CopyIn(size_t offset, std::span<const std::byte> from) {
  memory_.CopyIn(RingOffset(cursor_, sizeof(PacketDescriptor) + offset, memory_.data_bytes()),
                 from);
}

void PeerWriter::Commit(size_t payload_bytes, uint64_t transaction_id) {
  const uint32_t size = memory_.data_bytes();
  const size_t ring_bytes = InBandRingBytes(payload_bytes);
  memory_.CopyIn(cursor_, BytesOf(InBandDescriptor(payload_bytes, transaction_id)));
  memory_.CopyIn(RingOffset(cursor_, ring_bytes - sizeof(PacketTrailer), size),
                 BytesOf(TrailerOf(cursor_)));
  cursor_ = RingOffset(cursor_, ring_bytes, size);
}

bool PeerWriter::Publish() {
  const uint32_t old_in = std::exchange(in_, cursor_);
  memory_.Store(ControlWord::kIn, in_, kPlain);
  memory_.Fence();
  if (memory_.Load(ControlWord::kInterruptMask, kPlain) != 0) return false;
  return memory_.Load(ControlWord::kOut, kPlain) == old_in;
}

absl::StatusOr<bool> PeerWriter::RequestSpace(size_t payload_bytes) {
  const uint32_t pending = code_ == RingCode::kFirmware
                               ? memory_.data_bytes() - 1
                               : static_cast<uint32_t>(InBandRingBytes(payload_bytes));
  memory_.Store(ControlWord::kPendingSendSize, pending, kPlain);
  memory_.Fence();
  space_requested_ = true;
  return Reserve(payload_bytes);
}

void PeerWriter::ClearSpaceRequest() {
  memory_.Store(ControlWord::kPendingSendSize, 0, kPlain);
  space_requested_ = false;
}

PeerReader::PeerReader(ExploredMemory memory, RingCode code)
    : memory_(memory),
      code_(code),
      in_(memory_.Load(ControlWord::kIn, kPlain)),
      cursor_(memory_.Load(ControlWord::kOut, kPlain)),
      out_(cursor_) {
  memory_.Store(ControlWord::kInterruptMask, 0, kPlain);
  memory_.Fence();
}

absl::StatusOr<std::optional<PacketView>> PeerReader::Peek() {
  if (cursor_ == in_) in_ = memory_.Load(ControlWord::kIn, kPlain);
  if (cursor_ == in_) return std::nullopt;
  std::array<std::byte, sizeof(PacketDescriptor)> bytes;
  memory_.CopyOut(cursor_, bytes);
  const auto packet = ParsePacket(std::bit_cast<PacketDescriptor>(bytes),
                                  RingUsedBytes(in_, cursor_, memory_.data_bytes()));
  if (!packet.ok()) return packet.status();
  return std::optional<PacketView>(*packet);
}

void PeerReader::CopyPayload(const PacketView& packet, size_t offset,
                             std::span<std::byte> to) const {
  memory_.CopyOut(RingOffset(cursor_, packet.payload_offset_bytes + offset, memory_.data_bytes()),
                  to);
}

void PeerReader::Advance(const PacketView& packet) {
  cursor_ = RingOffset(cursor_, packet.ring_bytes, memory_.data_bytes());
}

bool PeerReader::Consume() {
  if (cursor_ == out_) return false;
  const uint32_t size = memory_.data_bytes();
  const uint32_t old_out = std::exchange(out_, cursor_);
  memory_.Store(ControlWord::kOut, out_, kPlain);
  memory_.Fence();
  const uint32_t pending = memory_.Load(ControlWord::kPendingSendSize, kPlain);
  if (pending == 0) return false;
  const uint32_t in = memory_.Load(ControlWord::kIn, kPlain);
  const uint32_t old_used = RingUsedBytes(in, old_out, size);
  const uint32_t new_used = RingUsedBytes(in, out_, size);
  if (code_ == RingCode::kLinux) return size - new_used > pending && size - old_used <= pending;
  return size - new_used - 1 >= pending && size - old_used - 1 < pending;
}

absl::StatusOr<bool> PeerReader::Arm() {
  if (code_ == RingCode::kLinux) {
    memory_.Store(ControlWord::kInterruptMask, 0, kPlain);
    memory_.Fence();
    masked_ = false;
  }
  in_ = memory_.Load(ControlWord::kIn, kPlain);
  return cursor_ != in_;
}

void PeerReader::Mask() {
  if (code_ != RingCode::kLinux || masked_) return;
  memory_.Store(ControlWord::kInterruptMask, 1, kPlain);
  masked_ = true;
}

}  // namespace vmbfs::hyperv
