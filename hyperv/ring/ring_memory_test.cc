#include "hyperv/ring/ring_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fcntl.h>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

std::vector<std::byte> Pattern(size_t bytes, uint8_t first) {
  std::vector<std::byte> pattern(bytes);
  for (size_t i = 0; i < bytes; ++i) pattern[i] = static_cast<std::byte>(first + i * 7 + i / 256);
  return pattern;
}

class RingMemoryTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  static constexpr size_t kDataPages = 3;
  static constexpr uint32_t kDataBytes = kDataPages * kPageBytes;

  PrivateRingPages pages_{kDataPages, GetParam()};
  RingMemory memory_ = pages_.Map();
};

TEST_P(RingMemoryTest, ControlWordsLieWhereTheFormatSays) {
  EXPECT_EQ(memory_.data_bytes(), kDataBytes);
  const std::array words = {ControlWord::kIn, ControlWord::kOut, ControlWord::kInterruptMask,
                            ControlWord::kPendingSendSize, ControlWord::kFeatureBits};
  const std::array offsets = {0, 4, 8, 12, 64};
  for (size_t i = 0; i < words.size(); ++i) {
    EXPECT_EQ(static_cast<int>(words[i]), offsets[i]);
    memory_.Store(words[i], static_cast<uint32_t>(100 + i), std::memory_order_seq_cst);
  }
  for (size_t i = 0; i < words.size(); ++i) {
    EXPECT_EQ(memory_.Load(words[i], std::memory_order_seq_cst), 100 + i);
  }
}

TEST_P(RingMemoryTest, IndicesThatAreNoneAreRefused) {
  for (const uint32_t index : {0u, 8u, kDataBytes - 8}) {
    memory_.Store(ControlWord::kIn, index, std::memory_order_relaxed);
    EXPECT_EQ(*memory_.LoadIndex(ControlWord::kIn, std::memory_order_relaxed), index);
  }
  for (const uint32_t index : {1u, 4u, 7u, 9u, kDataBytes - 1, kDataBytes, kDataBytes + 8,
                               0x80000000u, 0xFFFFFFF8u, 0xFFFFFFFFu}) {
    memory_.Store(ControlWord::kOut, index, std::memory_order_relaxed);
    EXPECT_EQ(memory_.LoadIndex(ControlWord::kOut, std::memory_order_relaxed).status().code(),
              absl::StatusCode::kInvalidArgument)
        << index;
  }
}

TEST_P(RingMemoryTest, CopiesAndPiecesAgreeAtEveryOffset) {
  std::vector<std::byte> model = Pattern(kDataBytes, 1);
  memory_.CopyIn(0, model);
  for (uint32_t offset = 0; offset < kDataBytes; offset += 8) {
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{8}, size_t{4096}, size_t{kDataBytes}}) {
      if (bytes > 8 && offset % 120 != 0) continue;  // some are enough
      std::vector<std::byte> expected(bytes);
      for (size_t i = 0; i < bytes; ++i) expected[i] = model[(offset + i) % kDataBytes];

      std::vector<std::byte> copied(bytes);
      memory_.CopyOut(offset, copied);
      ASSERT_EQ(copied, expected) << offset << " " << bytes;

      std::array<iovec, RingMemory::PiecesMax(kDataBytes)> pieces;
      const size_t count =
          memory_.Pieces(offset, bytes, std::span(pieces).first(RingMemory::PiecesMax(bytes)));
      std::vector<std::byte> joined;
      for (size_t i = 0; i < count; ++i) {
        const auto* start = static_cast<const std::byte*>(pieces[i].iov_base);
        joined.insert(joined.end(), start, start + pieces[i].iov_len);
      }
      ASSERT_EQ(joined, expected) << offset << " " << bytes;
    }
  }
}

TEST_P(RingMemoryTest, CopyInWrapsAndTouchesNothingElse) {
  std::vector<std::byte> model(kDataBytes);
  for (uint32_t offset = 0; offset < kDataBytes; offset += 248) {
    const std::vector<std::byte> piece = Pattern(5000, static_cast<uint8_t>(offset));
    memory_.CopyIn(offset, piece);
    for (size_t i = 0; i < piece.size(); ++i) model[(offset + i) % kDataBytes] = piece[i];
    std::vector<std::byte> all(kDataBytes);
    memory_.CopyOut(0, all);
    ASSERT_EQ(all, model) << offset;
  }
  EXPECT_TRUE(pages_.OutsideIsUntouched());
}

TEST_P(RingMemoryTest, NeighbouringPagesAreOnePiece) {
  std::array<iovec, 8> pieces;
  const bool scattered = GetParam() == PageLayout::kScattered;
  const bool twice = GetParam() == PageLayout::kTwice;
  EXPECT_EQ(memory_.mapped_twice(), twice);
  EXPECT_EQ(memory_.Pieces(0, kDataBytes, pieces), scattered ? 3u : 1u);
  EXPECT_EQ(memory_.Pieces(8, kDataBytes, pieces), scattered ? 4u : twice ? 1u : 2u);
  EXPECT_EQ(memory_.Pieces(kDataBytes - 8, 16, pieces), twice ? 1u : 2u);
}

INSTANTIATE_TEST_SUITE_P(Layouts, RingMemoryTest, ::testing::ValuesIn(kPageLayouts));

class MappedRingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    UniqueFd fd(::memfd_create("ring_memory_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(fd.get(), 0x10000), 0);
    ASSERT_EQ(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    ASSERT_TRUE(memory_.AddRegion({.id = 1, .gpa = 0, .bytes = 0x10000}, std::move(fd)).ok());
  }

  GuestMemory memory_;
};

TEST_F(MappedRingTest, GuestPagesAreTheRingInTheirOrderAndOutliveTheirRegion) {
  const std::array<uint64_t, 3> frames = {5, 2, 9};
  auto ring = RingMemory::Map(memory_, frames);
  ASSERT_TRUE(ring.ok()) << ring.status();
  std::byte* ram = memory_.MapRange(0, 0x10000)->data;

  ring->Store(ControlWord::kFeatureBits, 1, std::memory_order_relaxed);
  ring->CopyIn(4096 - 4, Pattern(8, 0x10));
  EXPECT_EQ(ram[5 * kPageBytes + 64], std::byte{1});
  EXPECT_EQ(std::memcmp(ram + 3 * kPageBytes - 4, Pattern(8, 0x10).data(), 4), 0);
  EXPECT_EQ(std::memcmp(ram + 9 * kPageBytes, Pattern(8, 0x10).data() + 4, 4), 0);

  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  std::array<std::byte, 8> seen;
  ring->CopyOut(4096 - 4, seen);
  EXPECT_EQ(std::memcmp(seen.data(), Pattern(8, 0x10).data(), 8), 0);
}

TEST_F(MappedRingTest, TooFewTooManyAndForeignPagesAreRefused) {
  std::vector<uint64_t> frames = {1};
  EXPECT_EQ(RingMemory::Map(memory_, frames).status().code(), absl::StatusCode::kInvalidArgument);
  frames = {1, 0x10};
  EXPECT_EQ(RingMemory::Map(memory_, frames).status().code(), absl::StatusCode::kInvalidArgument);
  // The same page again and again is the guest's own business.
  frames.assign(kRingPagesMax, 3);
  EXPECT_TRUE(RingMemory::Map(memory_, frames).ok());
  frames.push_back(3);
  EXPECT_EQ(RingMemory::Map(memory_, frames).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmbfs::hyperv
