#include "hyperv/ring/incoming_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/packet/hex_bytes.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// The packets of shared/specs/vmbus.md 6.5 and 5.3.
constexpr std::string_view kVersionRequest =
    "06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"
    "01 00 00 00 0c 00 00 00 01 00 00 00 00 00 00 00"
    "00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00";
constexpr std::string_view kSetUpGpaDirect =
    "06 00 02 00 08 00 00 00 00 00 00 00 00 00 00 00"
    "03 00 00 00 21 00 00 00 01 00 00 00 01 01 00 00"
    "00 00 18 00 00 00 08 00 00 00 50 00 00 00 00 00"
    "00 01 50 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 30 00 00 00";

// A ring whose peer is the test itself, which writes bytes and indices.
class IncomingRingTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  static constexpr uint32_t kDataBytes = 2 * kPageBytes;

  void SetWord(ControlWord word, uint32_t value) { peer_.Store(word, value, kRelaxed); }
  uint32_t Word(ControlWord word) const { return peer_.Load(word, kRelaxed); }

  IncomingRing OpenAt(uint32_t index, InterruptMasking masking = InterruptMasking::kWhileBusy) {
    SetWord(ControlWord::kIn, index);
    SetWord(ControlWord::kOut, index);
    auto ring = IncomingRing::Open(pages_.Map(), masking);
    EXPECT_TRUE(ring.ok()) << ring.status();
    return *std::move(ring);
  }

  // Writes bytes at `in` and moves it behind them.
  void Produce(std::span<const std::byte> packet) {
    const uint32_t in = Word(ControlWord::kIn);
    peer_.CopyIn(in, packet);
    SetWord(ControlWord::kIn, static_cast<uint32_t>((in + packet.size()) % kDataBytes));
  }

  // An in-band packet of `ring_bytes` in all, with a payload that depends on `seed`.
  static std::vector<std::byte> PacketOf(size_t ring_bytes, uint32_t seed) {
    std::vector<std::byte> packet(ring_bytes);
    for (size_t i = 16; i < ring_bytes - 8; ++i) packet[i] = static_cast<std::byte>(seed + i * 3);
    const size_t length_units = (ring_bytes - 8) / 8;
    packet[0] = std::byte{6};
    packet[2] = std::byte{2};
    packet[4] = static_cast<std::byte>(length_units & 0xFF);
    packet[5] = static_cast<std::byte>(length_units >> 8);
    return packet;
  }

  // Reads one packet and checks that it is `packet`.
  static void ExpectNext(IncomingRing& ring, std::span<const std::byte> packet) {
    std::array<std::byte, kDataBytes> buffer;
    const auto read = ring.Read(buffer);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_TRUE(read->has_value());
    const auto expected = packet.subspan(16, packet.size() - 24);
    ASSERT_TRUE(std::equal((*read)->payload.begin(), (*read)->payload.end(), expected.begin(),
                           expected.end()));
  }

  void ExpectRefusedWithoutMoving(IncomingRing& ring) {
    const uint32_t cursor = ring.cursor();
    const uint32_t out = Word(ControlWord::kOut);
    std::array<std::byte, kDataBytes> buffer;
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(ring.Peek().status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(ring.Read(buffer).status().code(), absl::StatusCode::kInvalidArgument);
    }
    EXPECT_FALSE(ring.Consume());
    EXPECT_EQ(ring.cursor(), cursor);
    EXPECT_EQ(Word(ControlWord::kOut), out);
    EXPECT_EQ(ring.packets(), 0u);
  }

  PrivateRingPages pages_{kDataBytes / kPageBytes, GetParam()};
  RingMemory peer_ = pages_.Map();
};

TEST_P(IncomingRingTest, VersionRequestOfTheSpecificationIsRead) {
  const auto packet = HexBytes(kVersionRequest);
  IncomingRing ring = OpenAt(0);
  Produce(packet);
  ExpectNext(ring, packet);
  EXPECT_EQ(Word(ControlWord::kOut), 0u);
  EXPECT_FALSE(ring.Consume());
  EXPECT_EQ(Word(ControlWord::kOut), 48u);
  EXPECT_EQ(ring.packets(), 1u);
  EXPECT_EQ(ring.bytes(), 48u);
  const auto next = ring.Peek();
  ASSERT_TRUE(next.ok());
  EXPECT_FALSE(next->has_value());
}

// Statement 53.
TEST_P(IncomingRingTest, PacketsThatWaitBehindNonZeroIndicesAreReadAfterOpen) {
  SetWord(ControlWord::kIn, 0x30);
  SetWord(ControlWord::kOut, 0x30);
  const auto packet = HexBytes(kSetUpGpaDirect);
  Produce(packet);
  auto ring = IncomingRing::Open(pages_.Map());
  ASSERT_TRUE(ring.ok()) << ring.status();
  ExpectNext(*ring, packet);
  EXPECT_FALSE(ring->Consume());
  EXPECT_EQ(Word(ControlWord::kOut), 0x30u + 72u);
}

// Statement 54.
TEST_P(IncomingRingTest, EverySizeIsReadAtSomeOffsets) {
  for (const uint32_t start : {8u, kDataBytes - 24u}) {
    IncomingRing ring = OpenAt(start);
    for (size_t ring_bytes = 24; ring_bytes <= kDataBytes - 8; ring_bytes += 8) {
      const auto packet = PacketOf(ring_bytes, start);
      Produce(packet);
      ASSERT_NO_FATAL_FAILURE(ExpectNext(ring, packet)) << ring_bytes;
      ASSERT_FALSE(ring.Consume());
    }
  }
  EXPECT_TRUE(pages_.OutsideIsUntouched());
}

// Statement 54.
TEST_P(IncomingRingTest, PacketsWrapAtEveryOffset) {
  for (uint32_t start = 0; start < kDataBytes; start += 8) {
    for (const size_t ring_bytes : {size_t{24}, size_t{32}, size_t{64}, size_t{kDataBytes - 8}}) {
      if (ring_bytes > 64 && start % 56 != 0) continue;  // some are enough
      IncomingRing ring = OpenAt(start);
      const auto packet = PacketOf(ring_bytes, start);
      Produce(packet);
      ASSERT_NO_FATAL_FAILURE(ExpectNext(ring, packet)) << start << " " << ring_bytes;
    }
  }
}

TEST_P(IncomingRingTest, PeekShowsThePacketUntilAdvance) {
  IncomingRing ring = OpenAt(kDataBytes - 16);
  const auto first = PacketOf(40, 1);
  const auto second = PacketOf(48, 2);
  Produce(first);
  Produce(second);
  for (int i = 0; i < 2; ++i) {
    const auto packet = ring.Peek();
    ASSERT_TRUE(packet.ok() && packet->has_value());
    EXPECT_EQ((*packet)->ring_bytes, 40u);
    std::array<std::byte, 5> part;
    ring.CopyPayload(**packet, 7, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), first.begin() + 16 + 7));
  }
  ring.Advance(**ring.Peek());
  ExpectNext(ring, second);
  // One Consume is enough for both.
  EXPECT_FALSE(ring.Consume());
  EXPECT_EQ(Word(ControlWord::kOut), (kDataBytes - 16 + 88) % kDataBytes);
}

TEST_P(IncomingRingTest, PayloadLargerThanTheBufferStaysInTheRing) {
  IncomingRing ring = OpenAt(0);
  const auto packet = PacketOf(48, 3);
  Produce(packet);
  std::array<std::byte, 23> buffer;
  EXPECT_EQ(ring.Read(buffer).status().code(), absl::StatusCode::kResourceExhausted);
  ExpectNext(ring, packet);
}

// Statement 60.
TEST_P(IncomingRingTest, CorruptIndicesRefuseTheOpen) {
  for (const ControlWord word : {ControlWord::kIn, ControlWord::kOut}) {
    for (const uint32_t index : {4u, kDataBytes, kDataBytes + 8, 0xFFFFFFF8u}) {
      SetWord(ControlWord::kIn, 0);
      SetWord(ControlWord::kOut, 0);
      SetWord(word, index);
      EXPECT_EQ(IncomingRing::Open(pages_.Map()).status().code(),
                absl::StatusCode::kInvalidArgument);
    }
  }
}

// Statement 60.
TEST_P(IncomingRingTest, CorruptInIsRefusedWithoutMoving) {
  for (const uint32_t index : {1u, 4u, kDataBytes - 4, kDataBytes, 0x80000000u, 0xFFFFFFFFu}) {
    IncomingRing ring = OpenAt(16);
    SetWord(ControlWord::kIn, index);
    EXPECT_EQ(ring.Arm().status().code(), absl::StatusCode::kInvalidArgument);
    ExpectRefusedWithoutMoving(ring);
  }
}

TEST_P(IncomingRingTest, OutThatThePeerOverwritesIsNotReadAgain) {
  IncomingRing ring = OpenAt(0);
  Produce(PacketOf(24, 1));
  SetWord(ControlWord::kOut, 0xFFFFFFFF);
  ExpectNext(ring, PacketOf(24, 1));
  EXPECT_FALSE(ring.Consume());
  EXPECT_EQ(Word(ControlWord::kOut), 24u);
}

TEST_P(IncomingRingTest, FewerBytesThanAPacketHasAreRefused) {
  for (const uint32_t available : {8u, 16u}) {
    IncomingRing ring = OpenAt(0);
    Produce(std::vector<std::byte>(available));
    ExpectRefusedWithoutMoving(ring);
  }
}

// Statement 60.
TEST_P(IncomingRingTest, CorruptDescriptorsAreRefusedWithoutMoving) {
  const std::array<std::string_view, 13> descriptors = {
      "00 00 02 00 03 00 00 00",  // type 0
      "05 00 02 00 03 00 00 00",  // types around the known ones
      "08 00 02 00 03 00 00 00",
      "0a 00 02 00 03 00 00 00",  // cancel
      "06 01 02 00 03 00 00 00",
      "06 00 02 00 03 00 02 00",  // unknown flags
      "06 00 02 00 03 00 00 80",
      "06 00 00 00 03 00 00 00",  // payload offset within the descriptor
      "06 00 01 00 03 00 00 00",
      "06 00 04 00 03 00 00 00",  // payload offset behind the end
      "06 00 02 00 00 00 00 00",  // length 0
      "06 00 02 00 04 00 00 00",  // no room for the trailer
      "06 00 02 00 ff ff 00 00",
  };
  for (const std::string_view text : descriptors) {
    for (const uint32_t start : {0u, kDataBytes - 8}) {
      IncomingRing ring = OpenAt(start);
      std::vector<std::byte> packet(32);
      const auto descriptor = HexBytes(text);
      std::copy(descriptor.begin(), descriptor.end(), packet.begin());
      Produce(packet);
      ExpectRefusedWithoutMoving(ring);
    }
  }
}

TEST_P(IncomingRingTest, ExtraHeadersAreCheckedAcrossTheWrap) {
  struct Case {
    std::string_view bytes;
    bool accepted;
  };
  const std::array<Case, 5> cases = {{
      {"0b 00 02 00 07 00 00 00 0000000000000000 0000000000000000", true},
      {"07 00 05 00 07 00 00 00 0000000000000000 adde00ff 02000000", true},
      {"07 00 05 00 07 00 00 00 0000000000000000 adde00ff 01000000", false},
      {"09 00 05 00 07 00 00 00 0000000000000000 efbeadde 01000000", true},
      {"09 00 05 00 07 00 00 00 0000000000000000 efbeadde 00000000", false},
  }};
  for (const auto& [bytes, accepted] : cases) {
    for (uint32_t start = kDataBytes - 64; start < kDataBytes; start += 8) {
      IncomingRing ring = OpenAt(start);
      std::vector<std::byte> packet(64);
      const auto header = HexBytes(bytes);
      std::copy(header.begin(), header.end(), packet.begin());
      Produce(packet);
      const auto peeked = ring.Peek();
      EXPECT_EQ(peeked.ok(), accepted) << bytes << " " << peeked.status();
      if (!accepted) ExpectRefusedWithoutMoving(ring);
    }
  }
}

// Statement 57.
TEST_P(IncomingRingTest, WaitingWriterIsSignalledExactlyWhenItsSpaceIsCrossed) {
  constexpr uint32_t kPacketBytes = 1016;
  constexpr int kPackets = 8;  // 8,128 of 8,192: 56 bytes are free
  std::vector<uint32_t> wanted = {0,
                                  1,
                                  7,
                                  8,
                                  56,
                                  64,
                                  100,
                                  1072,
                                  1073,
                                  1080,
                                  2088,
                                  4096,
                                  kDataBytes - 16,
                                  kDataBytes - 8,
                                  kDataBytes - 1,
                                  kDataBytes,
                                  0xFFFFFFFF};
  for (const uint32_t pending : wanted) {
    for (const uint32_t mask : {0u, 1u}) {
      IncomingRing ring = OpenAt(40);
      for (int i = 0; i < kPackets; ++i) Produce(PacketOf(kPacketBytes, 0));
      SetWord(ControlWord::kPendingSendSize, pending);
      SetWord(ControlWord::kInterruptMask, mask);
      for (int i = 0; i < kPackets; ++i) {
        ExpectNext(ring, PacketOf(kPacketBytes, 0));
        const uint32_t old_free = 56 + static_cast<uint32_t>(i) * kPacketBytes;
        const uint32_t new_free = old_free + kPacketBytes;
        const uint32_t rounded = pending & ~7u;
        EXPECT_EQ(ring.Consume(), rounded != 0 && old_free < rounded && new_free >= rounded)
            << "pending " << pending << " packet " << i;
      }
    }
  }
}

// Statement 57.
TEST_P(IncomingRingTest, SizeLessOneMeansCompletelyEmpty) {
  IncomingRing ring = OpenAt(0);
  Produce(PacketOf(24, 0));
  Produce(PacketOf(24, 0));
  SetWord(ControlWord::kPendingSendSize, kDataBytes - 1);
  ExpectNext(ring, PacketOf(24, 0));
  EXPECT_FALSE(ring.Consume());
  ExpectNext(ring, PacketOf(24, 0));
  EXPECT_TRUE(ring.Consume());
  EXPECT_FALSE(ring.Consume());  // nothing new: no second signal
}

TEST_P(IncomingRingTest, MaskIsSetAtOpenClearedByArmAndSetAgainByMask) {
  IncomingRing ring = OpenAt(0);
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 1u);
  EXPECT_FALSE(*ring.Arm());
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 0u);
  ring.Mask();
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 1u);
}

TEST_P(IncomingRingTest, ReaderThatNeverMasksLeavesTheMaskClear) {
  SetWord(ControlWord::kInterruptMask, 1);
  IncomingRing ring = OpenAt(0, InterruptMasking::kNever);
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 0u);
  EXPECT_FALSE(*ring.Arm());
  ring.Mask();
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 0u);
}

TEST_P(IncomingRingTest, ArmTellsOfAPacketThatCameBefore) {
  for (const auto masking : {InterruptMasking::kWhileBusy, InterruptMasking::kNever}) {
    IncomingRing ring = OpenAt(0, masking);
    ASSERT_FALSE((*ring.Peek()).has_value());
    Produce(PacketOf(24, 0));
    EXPECT_TRUE(*ring.Arm());
    ExpectNext(ring, PacketOf(24, 0));
    EXPECT_FALSE(ring.Consume());
    EXPECT_FALSE(*ring.Arm());
  }
}

TEST_P(IncomingRingTest, FeatureBitTellsWhetherThePeerHonoursPendingSendSizes) {
  IncomingRing ring = OpenAt(0);
  EXPECT_FALSE(ring.PeerHonoursPendingSendSize());
  SetWord(ControlWord::kFeatureBits, 0xFFFFFFFE);
  EXPECT_FALSE(ring.PeerHonoursPendingSendSize());
  SetWord(ControlWord::kFeatureBits, 1);
  EXPECT_TRUE(ring.PeerHonoursPendingSendSize());
}

INSTANTIATE_TEST_SUITE_P(Layouts, IncomingRingTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
