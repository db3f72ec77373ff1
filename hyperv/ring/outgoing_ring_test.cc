#include "hyperv/ring/outgoing_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/packet/hex_bytes.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// A ring whose peer is the test itself, which looks at bytes and moves `out`.
class OutgoingRingTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  static constexpr uint32_t kDataBytes = 2 * kPageBytes;

  // What is not written by the ring is seen.
  void SetUp() override { peer_.CopyIn(0, std::vector<std::byte>(kDataBytes, std::byte{0xEE})); }

  void SetWord(ControlWord word, uint32_t value) { peer_.Store(word, value, kRelaxed); }
  uint32_t Word(ControlWord word) const { return peer_.Load(word, kRelaxed); }

  OutgoingRing OpenAt(uint32_t index) {
    SetWord(ControlWord::kIn, index);
    SetWord(ControlWord::kOut, index);
    auto ring = OutgoingRing::Open(pages_.Map());
    EXPECT_TRUE(ring.ok()) << ring.status();
    return *std::move(ring);
  }

  std::vector<std::byte> Bytes(uint32_t offset, size_t bytes) const {
    std::vector<std::byte> copy(bytes);
    peer_.CopyOut(offset, copy);
    return copy;
  }

  static void Put(OutgoingRing& ring, std::span<const std::byte> payload) {
    const auto reserved = ring.Reserve(payload.size());
    ASSERT_TRUE(reserved.ok()) << reserved.status();
    ASSERT_TRUE(*reserved);
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
  }

  PrivateRingPages pages_{kDataBytes / kPageBytes, GetParam()};
  RingMemory peer_ = pages_.Map();
};

TEST_P(OutgoingRingTest, VersionRequestIsTheBytesOfTheSpecification) {
  OutgoingRing ring = OpenAt(0);
  Put(ring, HexBytes("01 00 00 00 0c 00 00 00 01 00 00 00 00 00 00 00 00 00 01 00"));
  std::ignore = ring.Publish();
  EXPECT_EQ(Bytes(0, 48), HexBytes("06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"
                                   "01 00 00 00 0c 00 00 00 01 00 00 00 00 00 00 00"
                                   "00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00"));
  EXPECT_EQ(Bytes(48, 1)[0], std::byte{0xEE});
  EXPECT_EQ(Word(ControlWord::kIn), 48u);
  EXPECT_EQ(ring.packets(), 1u);
  EXPECT_EQ(ring.bytes(), 48u);
}

TEST_P(OutgoingRingTest, SetUpMessageIsTheBytesOfTheSpecification) {
  OutgoingRing ring = OpenAt(0x30);
  Put(ring, HexBytes("03 00 00 00 21 00 00 00 01 00 00 00 01 01 00 00 00 00 18 00 00 00 08 00 00"
                     "00 50 00 00 00 00 00 00 01 50 00 00 00 00 00 00"));
  std::ignore = ring.Publish();
  EXPECT_EQ(Bytes(0x30, 72), HexBytes("06 00 02 00 08 00 00 00 00 00 00 00 00 00 00 00"
                                      "03 00 00 00 21 00 00 00 01 00 00 00 01 01 00 00"
                                      "00 00 18 00 00 00 08 00 00 00 50 00 00 00 00 00"
                                      "00 01 50 00 00 00 00 00 00 00 00 00 00 00 00 00"
                                      "00 00 00 00 30 00 00 00"));
  EXPECT_EQ(Word(ControlWord::kIn), 0x30u + 72u);
}

TEST_P(OutgoingRingTest, OpenAnnouncesTheFeatureAndWaitsForNothing) {
  SetWord(ControlWord::kPendingSendSize, 4096);
  SetWord(ControlWord::kInterruptMask, 1);
  OpenAt(0);
  EXPECT_EQ(Word(ControlWord::kFeatureBits), 1u);
  EXPECT_EQ(Word(ControlWord::kPendingSendSize), 0u);
  EXPECT_EQ(Word(ControlWord::kInterruptMask), 1u);  // the reader's
}

TEST_P(OutgoingRingTest, OpenHonoursIndicesThatAreNotZero) {
  SetWord(ControlWord::kIn, 4096);
  SetWord(ControlWord::kOut, 4096 - 24);
  auto ring = OutgoingRing::Open(pages_.Map());
  ASSERT_TRUE(ring.ok());
  Put(*ring, {});
  EXPECT_FALSE(ring->Publish());  // the reader has not seen the first one yet
  EXPECT_EQ(Word(ControlWord::kIn), 4096u + 24u);
  // 8,192 - 48 - 8 are free: a packet of 8,136 fits, one of 8,144 does not.
  EXPECT_FALSE(*ring->Reserve(8144 - 24));
  EXPECT_TRUE(*ring->Reserve(8136 - 24));
}

TEST_P(OutgoingRingTest, PacketsWithTrailersLieRightAtEveryOffset) {
  for (uint32_t start = 0; start < kDataBytes; start += 8) {
    OutgoingRing ring = OpenAt(start);
    const auto payload = HexBytes("00 01 02 03 04 05 06 07 08 09 0a 0b 0c");
    Put(ring, payload);
    std::ignore = ring.Publish();
    auto expected = HexBytes(
        "06 00 02 00 04 00 00 00 00 00 00 00 00 00 00 00"
        "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00 00 00 00 00 00");
    for (int shift = 0; shift < 32; shift += 8) {
      expected.push_back(static_cast<std::byte>((start >> shift) & 0xFF));
    }
    ASSERT_EQ(Bytes(start, 40), expected) << start;
    ASSERT_EQ(Word(ControlWord::kIn), (start + 40) % kDataBytes);
    ASSERT_EQ(Bytes((start + 40) % kDataBytes, 1)[0], std::byte{0xEE});
    SetUp();
  }
  EXPECT_TRUE(pages_.OutsideIsUntouched());
}

TEST_P(OutgoingRingTest, PayloadWrittenInPlaceArrivesAndMayBeShorterThanReserved) {
  for (uint32_t start = 0; start < kDataBytes; start += 136) {
    OutgoingRing ring = OpenAt(start);
    ASSERT_TRUE(*ring.Reserve(5000));
    std::array<iovec, RingMemory::PiecesMax(5000)> pieces;
    const size_t count = ring.Pieces(3, 4990, pieces);
    uint8_t value = 0;
    for (const iovec& piece : std::span(pieces).first(count)) {
      for (size_t i = 0; i < piece.iov_len; ++i) {
        static_cast<uint8_t*>(piece.iov_base)[i] = value++;
      }
    }
    EXPECT_EQ(value, 4990 % 256);
    ring.CopyIn(0, HexBytes("aa bb cc"));
    ring.Commit(4097, 0x0102030405060708);
    std::ignore = ring.Publish();
    ASSERT_EQ(Word(ControlWord::kIn), (start + 16 + 4104 + 8) % kDataBytes);
    const auto packet = Bytes(start, 16 + 4104 + 8);
    ASSERT_EQ(packet[4], std::byte{(16 + 4104) / 8 % 256});
    ASSERT_EQ(packet[8], std::byte{8});
    ASSERT_EQ(packet[15], std::byte{1});
    ASSERT_EQ(packet[18], std::byte{0xcc});
    for (size_t i = 3; i < 4097; ++i) ASSERT_EQ(packet[16 + i], static_cast<std::byte>(i - 3));
    for (size_t i = 4097; i < 4104; ++i) ASSERT_EQ(packet[16 + i], std::byte{0});
  }
}

TEST_P(OutgoingRingTest, NothingIsVisibleBeforePublishAndOnePublishShowsAll) {
  OutgoingRing ring = OpenAt(8);
  ASSERT_TRUE(*ring.Reserve(100));  // replaced, never committed
  Put(ring, HexBytes("01"));
  Put(ring, HexBytes("02"));
  EXPECT_EQ(Word(ControlWord::kIn), 8u);
  EXPECT_TRUE(ring.Publish());
  EXPECT_EQ(Word(ControlWord::kIn), 8u + 2 * 32u);
  // Each has its own start in its trailer.
  EXPECT_EQ(Bytes(8 + 24, 8), HexBytes("00 00 00 00 08 00 00 00"));
  EXPECT_EQ(Bytes(8 + 32 + 24, 8), HexBytes("00 00 00 00 28 00 00 00"));
  EXPECT_FALSE(ring.Publish());  // nothing new
}

TEST_P(OutgoingRingTest, SpaceIsCountedToTheByte) {
  EXPECT_EQ(OpenAt(0).payload_bytes_max(), kDataBytes - 40);
  for (uint32_t used = 0; used <= kDataBytes - 8; used += 8) {
    SetWord(ControlWord::kIn, used);
    SetWord(ControlWord::kOut, 0);
    auto ring = OutgoingRing::Open(pages_.Map());
    ASSERT_TRUE(ring.ok());
    const size_t free_bytes = kDataBytes - used - 8;
    for (const size_t payload : {size_t{0}, size_t{1}, free_bytes - 32, free_bytes - 24,
                                 free_bytes - 23, free_bytes - 16}) {
      if (payload > ring->payload_bytes_max()) continue;
      ASSERT_EQ(*ring->Reserve(payload), (payload + 7) / 8 * 8 + 24 <= free_bytes)
          << used << " " << payload;
    }
  }
}

// Statement 56.
TEST_P(OutgoingRingTest, SignalIsDueIffTheReaderDrainedTheRingAndIsNotMasked) {
  for (const uint32_t mask : {0u, 1u, 0xFFFFFFFFu}) {
    for (const bool drained : {false, true}) {
      OutgoingRing ring = OpenAt(0);
      SetWord(ControlWord::kInterruptMask, mask);
      Put(ring, HexBytes("01"));
      EXPECT_EQ(ring.Publish(), mask == 0);
      if (drained) SetWord(ControlWord::kOut, 32);
      Put(ring, HexBytes("02"));
      EXPECT_EQ(ring.Publish(), mask == 0 && drained);
      EXPECT_FALSE(ring.Publish());
    }
  }
}

// Statement 60.
TEST_P(OutgoingRingTest, CorruptIndicesAreRefusedWithoutMoving) {
  for (const uint32_t index : {1u, 4u, kDataBytes - 4, kDataBytes, 0x80000000u, 0xFFFFFFFFu}) {
    for (const ControlWord word : {ControlWord::kIn, ControlWord::kOut}) {
      SetWord(ControlWord::kIn, 0);
      SetWord(ControlWord::kOut, 0);
      SetWord(word, index);
      EXPECT_EQ(OutgoingRing::Open(pages_.Map()).status().code(),
                absl::StatusCode::kInvalidArgument);
    }
    OutgoingRing ring = OpenAt(16);
    SetWord(ControlWord::kOut, index);
    EXPECT_EQ(ring.Reserve(8).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ring.RequestSpace(8).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ring.cursor(), 16u);
    EXPECT_EQ(Word(ControlWord::kIn), 16u);
    // An `out` that breaks between the two costs nothing but the signal.
    SetWord(ControlWord::kOut, 16);
    Put(ring, HexBytes("01"));
    SetWord(ControlWord::kOut, index);
    EXPECT_FALSE(ring.Publish());
  }
}

TEST_P(OutgoingRingTest, InThatThePeerOverwritesIsNotReadAgain) {
  OutgoingRing ring = OpenAt(0);
  SetWord(ControlWord::kIn, 0xFFFFFFFF);
  Put(ring, HexBytes("01"));
  EXPECT_TRUE(ring.Publish());
  EXPECT_EQ(Word(ControlWord::kIn), 32u);
}

// Statement 58.
TEST_P(OutgoingRingTest, RequestForSpaceIsAtLeastAQuarterAndNeverUnsatisfiable) {
  OutgoingRing ring = OpenAt(0);
  EXPECT_TRUE(*ring.RequestSpace(8));
  EXPECT_EQ(Word(ControlWord::kPendingSendSize), 2048u);  // 8,184 / 4, rounded up
  EXPECT_TRUE(ring.space_requested());
  ring.ClearSpaceRequest();
  EXPECT_EQ(Word(ControlWord::kPendingSendSize), 0u);
  EXPECT_FALSE(ring.space_requested());

  EXPECT_TRUE(*ring.RequestSpace(3000));
  EXPECT_EQ(Word(ControlWord::kPendingSendSize), 3024u);
  EXPECT_TRUE(*ring.RequestSpace(ring.payload_bytes_max()));
  EXPECT_EQ(Word(ControlWord::kPendingSendSize), kDataBytes - 16);
}

TEST_P(OutgoingRingTest, RequestForSpaceTellsWhetherItIsThereAlready) {
  OutgoingRing ring = OpenAt(0);
  Put(ring, std::vector<std::byte>(8000));
  std::ignore = ring.Publish();
  EXPECT_FALSE(*ring.RequestSpace(500));
  SetWord(ControlWord::kOut, 8024);  // the reader was quicker
  EXPECT_TRUE(*ring.RequestSpace(500));
}

INSTANTIATE_TEST_SUITE_P(Layouts, OutgoingRingTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
