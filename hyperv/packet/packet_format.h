// Bytes of a VMBus packet in a ring. Format: shared/specs/vmbus.md section 4.2.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Lengths and offsets in descriptors count units of 8 bytes, and everything in
// a ring starts at a multiple of it.
inline constexpr size_t kPacketUnitBytes = 8;

enum class PacketType : uint16_t {
  kInBand = 6,
  kTransferPages = 7,
  kGpaDirect = 9,  // guest to host only
  kCompletion = 0xB,
};

inline constexpr uint16_t kPacketFlagCompletionRequested = 0x0001;

// At the start of every packet.
struct PacketDescriptor {
  boost::endian::little_uint16_buf_t type;
  boost::endian::little_uint16_buf_t payload_offset_units;  // from the packet's start
  boost::endian::little_uint16_buf_t length_units;          // all but the trailer
  boost::endian::little_uint16_buf_t flags;
  boost::endian::little_uint64_buf_t transaction_id;
};
static_assert(sizeof(PacketDescriptor) == 16 && alignof(PacketDescriptor) == 1);
static_assert(offsetof(PacketDescriptor, type) == 0);
static_assert(offsetof(PacketDescriptor, payload_offset_units) == 2);
static_assert(offsetof(PacketDescriptor, length_units) == 4);
static_assert(offsetof(PacketDescriptor, flags) == 6);
static_assert(offsetof(PacketDescriptor, transaction_id) == 8);

// Behind the descriptor of a kTransferPages packet; `range_count` ranges of
// kTransferPageRangeBytes follow and fill the space up to the payload.
struct TransferPagesHeader {
  boost::endian::little_uint16_buf_t set_id;
  boost::endian::little_uint16_buf_t reserved;  // may be garbage
  boost::endian::little_uint32_buf_t range_count;
};
static_assert(sizeof(TransferPagesHeader) == 8 && alignof(TransferPagesHeader) == 1);
static_assert(offsetof(TransferPagesHeader, set_id) == 0);
static_assert(offsetof(TransferPagesHeader, reserved) == 2);
static_assert(offsetof(TransferPagesHeader, range_count) == 4);
inline constexpr size_t kTransferPageRangeBytes = 8;

// Behind the descriptor of a kGpaDirect packet; `range_count` page ranges
// follow, each of at least kGpaRangeBytesMin.
struct GpaDirectHeader {
  boost::endian::little_uint32_buf_t reserved;  // may be garbage
  boost::endian::little_uint32_buf_t range_count;
};
static_assert(sizeof(GpaDirectHeader) == 8 && alignof(GpaDirectHeader) == 1);
static_assert(offsetof(GpaDirectHeader, reserved) == 0);
static_assert(offsetof(GpaDirectHeader, range_count) == 4);
// Byte count and offset (4 bytes each), and one page number.
inline constexpr size_t kGpaRangeBytesMin = 16;

// Behind every packet.
struct PacketTrailer {
  boost::endian::little_uint32_buf_t zero;
  boost::endian::little_uint32_buf_t start_offset_bytes;  // of this packet in the ring
};
static_assert(sizeof(PacketTrailer) == 8 && alignof(PacketTrailer) == 1);
static_assert(offsetof(PacketTrailer, zero) == 0);
static_assert(offsetof(PacketTrailer, start_offset_bytes) == 4);

inline constexpr size_t kPacketBytesMin = sizeof(PacketDescriptor) + sizeof(PacketTrailer);
// What a 16-bit count of units can say, less the descriptor.
inline constexpr size_t kPacketPayloadBytesMax =
    size_t{0xFFFF} * kPacketUnitBytes - sizeof(PacketDescriptor);

constexpr size_t RoundUpToPacketUnit(size_t bytes) {
  return (bytes + kPacketUnitBytes - 1) / kPacketUnitBytes * kPacketUnitBytes;
}

// Ring bytes that an in-band packet takes, trailer included.
constexpr size_t InBandRingBytes(size_t payload_bytes) {
  return sizeof(PacketDescriptor) + RoundUpToPacketUnit(payload_bytes) + sizeof(PacketTrailer);
}

}  // namespace vmbfs::hyperv
