#include "hyperv/packet/packet.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

bool IsKnownType(uint16_t type) {
  switch (static_cast<PacketType>(type)) {
    case PacketType::kInBand:
    case PacketType::kTransferPages:
    case PacketType::kGpaDirect:
    case PacketType::kCompletion:
      return true;
  }
  return false;
}

// What must lie between a packet's start and its payload at least.
size_t HeaderBytesMin(PacketType type) {
  switch (type) {
    case PacketType::kTransferPages:
      return sizeof(PacketDescriptor) + sizeof(TransferPagesHeader);
    case PacketType::kGpaDirect:
      return sizeof(PacketDescriptor) + sizeof(GpaDirectHeader);
    case PacketType::kInBand:
    case PacketType::kCompletion:
      break;
  }
  return sizeof(PacketDescriptor);
}

}  // namespace

absl::StatusOr<PacketView> ParsePacket(const PacketDescriptor& descriptor, size_t available_bytes) {
  const uint16_t type = descriptor.type.value();
  const uint16_t flags = descriptor.flags.value();
  const size_t payload_offset = descriptor.payload_offset_units.value() * kPacketUnitBytes;
  const size_t length = descriptor.length_units.value() * kPacketUnitBytes;

  if (!IsKnownType(type)) {
    return absl::InvalidArgumentError(absl::StrCat("packet type ", type, " is unknown"));
  }
  if ((flags & ~kPacketFlagCompletionRequested) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("packet flags 0x", absl::Hex(flags), " are unknown"));
  }
  const size_t header_bytes_min = HeaderBytesMin(static_cast<PacketType>(type));
  if (payload_offset < header_bytes_min) {
    return absl::InvalidArgumentError(absl::StrCat("packet payload offset ", payload_offset,
                                                   " lies within the header of ", header_bytes_min,
                                                   " bytes"));
  }
  if (length < payload_offset) {
    return absl::InvalidArgumentError(
        absl::StrCat("packet length ", length, " is below its payload offset ", payload_offset));
  }
  if (length + sizeof(PacketTrailer) > available_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("packet length ", length, " and its trailer of ",
                                                   sizeof(PacketTrailer), " exceed the ",
                                                   available_bytes, " bytes available"));
  }
  return PacketView{
      .type = static_cast<PacketType>(type),
      .completion_requested = (flags & kPacketFlagCompletionRequested) != 0,
      .transaction_id = descriptor.transaction_id.value(),
      .payload_offset_bytes = static_cast<uint32_t>(payload_offset),
      .payload_bytes = static_cast<uint32_t>(length - payload_offset),
      .ring_bytes = static_cast<uint32_t>(length + sizeof(PacketTrailer)),
  };
}

absl::Status CheckTransferPages(const PacketView& packet, const TransferPagesHeader& header) {
  const uint64_t range_count = header.range_count.value();
  const uint64_t space =
      packet.payload_offset_bytes - sizeof(PacketDescriptor) - sizeof(TransferPagesHeader);
  if (range_count * kTransferPageRangeBytes != space) {
    return absl::InvalidArgumentError(
        absl::StrCat("transfer-page packet has ", range_count, " ranges in ", space, " bytes"));
  }
  return absl::OkStatus();
}

absl::Status CheckGpaDirect(const PacketView& packet, const GpaDirectHeader& header) {
  const uint64_t range_count = header.range_count.value();
  const uint64_t space =
      packet.payload_offset_bytes - sizeof(PacketDescriptor) - sizeof(GpaDirectHeader);
  if (range_count == 0 || range_count * kGpaRangeBytesMin > space) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPA-direct packet has ", range_count, " ranges in ", space, " bytes"));
  }
  return absl::OkStatus();
}

PacketDescriptor InBandDescriptor(size_t payload_bytes, uint64_t transaction_id) {
  if (payload_bytes > kPacketPayloadBytesMax) std::abort();
  const size_t length = sizeof(PacketDescriptor) + RoundUpToPacketUnit(payload_bytes);
  PacketDescriptor descriptor;
  descriptor.type = static_cast<uint16_t>(PacketType::kInBand);
  descriptor.payload_offset_units =
      static_cast<uint16_t>(sizeof(PacketDescriptor) / kPacketUnitBytes);
  descriptor.length_units = static_cast<uint16_t>(length / kPacketUnitBytes);
  descriptor.flags = uint16_t{0};
  descriptor.transaction_id = transaction_id;
  return descriptor;
}

PacketTrailer TrailerOf(uint32_t start_offset_bytes) {
  PacketTrailer trailer;
  trailer.zero = 0u;
  trailer.start_offset_bytes = start_offset_bytes;
  return trailer;
}

}  // namespace vmbfs::hyperv
