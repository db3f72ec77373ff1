// Packets out of and into a ring, as pure functions of their header bytes.
//
// Trust: descriptors are the peer's. The caller copies one out of the ring
// once and gives the copy; what comes back holds no illegal state.
// Format: packet_format.h. Rules: shared/specs/vmbus.md sections 4.2 and 4.4.

#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/packet/packet_format.h"

namespace vmbfs::hyperv {

// A packet that lies whole within the bytes it was checked against.
struct PacketView {
  PacketType type = PacketType::kInBand;
  bool completion_requested = false;
  uint64_t transaction_id = 0;
  uint32_t payload_offset_bytes = 0;  // from the packet's start
  uint32_t payload_bytes = 0;         // with padding; a multiple of 8
  uint32_t ring_bytes = 0;            // the whole packet, trailer included
};

// Reads `descriptor` of a packet with `available_bytes` of ring behind its
// first byte.
//
// Errors: kInvalidArgument when the type or a flag is unknown, the offsets
// contradict each other, or the packet with its trailer exceeds what is there.
absl::StatusOr<PacketView> ParsePacket(const PacketDescriptor& descriptor, size_t available_bytes);

// Checks the count of ranges in a packet's extra header against the space
// between the descriptor and the payload.
//
// Errors: kInvalidArgument.
absl::Status CheckTransferPages(const PacketView& packet, const TransferPagesHeader& header);
absl::Status CheckGpaDirect(const PacketView& packet, const GpaDirectHeader& header);

// The descriptor of an in-band packet that asks for no completion.
// REQUIRES: payload_bytes <= kPacketPayloadBytesMax.
PacketDescriptor InBandDescriptor(size_t payload_bytes, uint64_t transaction_id = 0);

// The trailer of a packet that starts at `start_offset_bytes` of the ring.
PacketTrailer TrailerOf(uint32_t start_offset_bytes);

}  // namespace vmbfs::hyperv
