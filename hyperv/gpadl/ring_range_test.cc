#include "hyperv/gpadl/ring_range.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;

// A list of one range with page frames 100, 101, ...
PageRanges Ring(uint64_t head, size_t pages) {
  std::vector<uint64_t> words = {head};
  for (size_t i = 0; i < pages; ++i) words.push_back(100 + i);
  return *PageRanges::Parse(words, 1);
}

bool Refused(const PageRanges* ring, uint32_t downstream_page_offset) {
  return absl::IsInvalidArgument(SplitRing(ring, downstream_page_offset).status());
}

TEST(SplitRingTest, PagesBelowTheOffsetAreIncoming) {
  const PageRanges ring = Ring(5 * 4096, 5);
  const auto split = SplitRing(&ring, 2);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_THAT(split->incoming, ElementsAre(100, 101));
  EXPECT_THAT(split->outgoing, ElementsAre(102, 103, 104));
  EXPECT_THAT(split->whole, ElementsAre(100, 101, 102, 103, 104));
}

TEST(SplitRingTest, EachSideHasAtLeastTwoPages) {
  const PageRanges ring = Ring(5 * 4096, 5);
  EXPECT_TRUE(Refused(&ring, 0));
  EXPECT_TRUE(Refused(&ring, 1));
  EXPECT_FALSE(Refused(&ring, 2));
  EXPECT_FALSE(Refused(&ring, 3));
  EXPECT_TRUE(Refused(&ring, 4));
  EXPECT_TRUE(Refused(&ring, 5));
  EXPECT_TRUE(Refused(&ring, 6));
  EXPECT_TRUE(Refused(&ring, 0xFFFFFFFF));
}

TEST(SplitRingTest, MissingGpadlSeveralRangesAndPartsOfPagesAreRefused) {
  EXPECT_TRUE(Refused(nullptr, 2));
  const PageRanges offset = Ring(uint64_t{8} << 32 | (4 * 4096 - 8), 4);
  EXPECT_TRUE(Refused(&offset, 2));
  const PageRanges short_of_a_page = Ring(4 * 4096 - 8, 4);
  EXPECT_TRUE(Refused(&short_of_a_page, 2));
  const PageRanges two = *PageRanges::Parse(std::vector<uint64_t>{0x2000, 1, 2, 0x2000, 3, 4}, 2);
  EXPECT_TRUE(Refused(&two, 2));
}

}  // namespace
}  // namespace vmbfs::hyperv
