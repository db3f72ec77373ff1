#include "hyperv/packet/packet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "absl/status/status.h"
#include "hyperv/packet/hex_bytes.h"

namespace vmbfs::hyperv {
namespace {

template <typename Wire>
Wire FromHex(std::string_view text) {
  const auto bytes = HexBytes(text);
  std::array<std::byte, sizeof(Wire)> array{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), array.size()), array.begin());
  return std::bit_cast<Wire>(array);
}

template <typename Wire>
std::vector<std::byte> ToBytes(const Wire& wire) {
  const auto array = std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire);
  return {array.begin(), array.end()};
}

PacketDescriptor Descriptor(uint16_t type, uint16_t payload_offset_units, uint16_t length_units,
                            uint16_t flags) {
  PacketDescriptor descriptor;
  descriptor.type = type;
  descriptor.payload_offset_units = payload_offset_units;
  descriptor.length_units = length_units;
  descriptor.flags = flags;
  descriptor.transaction_id = 0x1122334455667788u;
  return descriptor;
}

TEST(PacketTest, DescriptorOfTheSpecificationIsRead) {
  const auto packet =
      ParsePacket(FromHex<PacketDescriptor>("06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"), 48);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->type, PacketType::kInBand);
  EXPECT_FALSE(packet->completion_requested);
  EXPECT_EQ(packet->transaction_id, 0u);
  EXPECT_EQ(packet->payload_offset_bytes, 16u);
  EXPECT_EQ(packet->payload_bytes, 24u);
  EXPECT_EQ(packet->ring_bytes, 48u);
}

TEST(PacketTest, TransactionIdAndCompletionRequestAreRead) {
  const auto packet = ParsePacket(Descriptor(0xB, 3, 3, 1), 32);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->type, PacketType::kCompletion);
  EXPECT_TRUE(packet->completion_requested);
  EXPECT_EQ(packet->transaction_id, 0x1122334455667788u);
  EXPECT_EQ(packet->payload_bytes, 0u);
}

TEST(PacketTest, OnlyFourTypesAreKnown) {
  for (uint32_t type = 0; type <= 0xFFFF; ++type) {
    const auto packet = ParsePacket(Descriptor(static_cast<uint16_t>(type), 5, 6, 0), 4096);
    const bool known = type == 6 || type == 7 || type == 9 || type == 0xB;
    ASSERT_EQ(packet.ok(), known) << "type " << type;
    ASSERT_EQ(packet.status().code(),
              known ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument);
  }
}

TEST(PacketTest, OnlyTheCompletionFlagIsKnown) {
  for (uint32_t flags = 0; flags <= 0xFFFF; ++flags) {
    const auto packet = ParsePacket(Descriptor(6, 2, 2, static_cast<uint16_t>(flags)), 24);
    ASSERT_EQ(packet.ok(), flags <= 1) << "flags " << flags;
  }
}

TEST(PacketTest, PayloadOffsetMustLieBehindTheHeaderAndWithinTheLength) {
  for (const uint16_t type : std::to_array<uint16_t>({6, 7, 9, 0xB})) {
    const uint16_t header_units = type == 7 || type == 9 ? 3 : 2;
    for (uint16_t offset = 0; offset <= 12; ++offset) {
      const auto packet = ParsePacket(Descriptor(type, offset, 10, 0), 4096);
      EXPECT_EQ(packet.ok(), offset >= header_units && offset <= 10)
          << "type " << type << " offset " << offset;
    }
  }
}

TEST(PacketTest, LengthWithTrailerMustBeAvailable) {
  for (uint16_t length = 0; length <= 20; ++length) {
    for (size_t available = 0; available <= 200; available += 8) {
      const auto packet = ParsePacket(Descriptor(6, 2, length, 0), available);
      EXPECT_EQ(packet.ok(), length >= 2 && length * 8u + 8 <= available)
          << "length " << length << " available " << available;
    }
  }
  EXPECT_TRUE(ParsePacket(Descriptor(6, 2, 0xFFFF, 0), 0xFFFF * 8 + 8).ok());
  EXPECT_FALSE(ParsePacket(Descriptor(6, 2, 0xFFFF, 0), 0xFFFF * 8).ok());
}

TEST(PacketTest, TransferPageRangesMustFillTheSpaceBeforeThePayload) {
  const auto packet = ParsePacket(Descriptor(7, 5, 6, 0), 4096);  // room for two ranges
  ASSERT_TRUE(packet.ok());
  for (const uint32_t count : {0u, 1u, 2u, 3u, 0x20000002u, 0xFFFFFFFFu}) {
    TransferPagesHeader header = FromHex<TransferPagesHeader>("ad de ff ff 00 00 00 00");
    header.range_count = count;
    EXPECT_EQ(CheckTransferPages(*packet, header).ok(), count == 2) << count;
  }
}

TEST(PacketTest, GpaRangesMustBeThereAndFit) {
  const auto packet = ParsePacket(Descriptor(9, 7, 8, 0), 4096);  // two ranges of a page each
  ASSERT_TRUE(packet.ok());
  for (const uint32_t count : {0u, 1u, 2u, 3u, 0x10000001u, 0xFFFFFFFFu}) {
    GpaDirectHeader header = FromHex<GpaDirectHeader>("ad de be ef 00 00 00 00");
    header.range_count = count;
    EXPECT_EQ(CheckGpaDirect(*packet, header).ok(), count == 1 || count == 2) << count;
  }
}

TEST(PacketTest, InBandDescriptorAndTrailerAreTheBytesOfTheSpecification) {
  // The version request's packet, and the trailer of the set-up example.
  EXPECT_EQ(ToBytes(InBandDescriptor(20)),
            HexBytes("06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"));
  EXPECT_EQ(ToBytes(InBandDescriptor(8 + 33)),
            HexBytes("06 00 02 00 08 00 00 00 00 00 00 00 00 00 00 00"));
  EXPECT_EQ(ToBytes(TrailerOf(0x30)), HexBytes("00 00 00 00 30 00 00 00"));
  EXPECT_EQ(InBandRingBytes(20), 48u);
  EXPECT_EQ(InBandRingBytes(8 + 33), 72u);
  EXPECT_EQ(InBandRingBytes(8 + 12288), 12320u);
}

TEST(PacketTest, TheLargestPayloadIsWhatTheLengthFieldCanSay) {
  const auto packet = ParsePacket(InBandDescriptor(kPacketPayloadBytesMax), 1 << 20);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->payload_bytes, kPacketPayloadBytesMax);
}

}  // namespace
}  // namespace vmbfs::hyperv
