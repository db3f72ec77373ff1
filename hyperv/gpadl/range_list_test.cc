#include "hyperv/gpadl/range_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;

// A range's first word.
uint64_t Head(uint32_t byte_count, uint32_t byte_offset = 0) {
  return byte_count | uint64_t{byte_offset} << 32;
}

bool Refused(const std::vector<uint64_t>& words, size_t range_count) {
  return absl::IsInvalidArgument(PageRanges::Parse(words, range_count).status());
}

TEST(PageRangesTest, OnePageAlignedRangeKeepsItsPageFrames) {
  const std::vector<uint64_t> words = {Head(0x3000), 0x1230, 0x1231, 0x1232};
  const auto ranges = PageRanges::Parse(words, 1);
  ASSERT_TRUE(ranges.ok()) << ranges.status();
  EXPECT_EQ(ranges->range_count(), 1u);
  EXPECT_EQ(ranges->page_count(), 3u);
  EXPECT_EQ(ranges->range(0).byte_count, 0x3000u);
  EXPECT_EQ(ranges->range(0).byte_offset, 0u);
  EXPECT_THAT(ranges->range(0).page_frames, ElementsAre(0x1230, 0x1231, 0x1232));
}

TEST(PageRangesTest, SeveralRangesAreToldApart) {
  const std::vector<uint64_t> words = {Head(1, 4095), 10, Head(2, 4095), 20, 21, Head(4096), 30};
  const auto ranges = PageRanges::Parse(words, 3);
  ASSERT_TRUE(ranges.ok()) << ranges.status();
  EXPECT_EQ(ranges->page_count(), 4u);
  EXPECT_THAT(ranges->range(0).page_frames, ElementsAre(10));
  EXPECT_EQ(ranges->range(1).byte_offset, 4095u);
  EXPECT_THAT(ranges->range(1).page_frames, ElementsAre(20, 21));
  EXPECT_THAT(ranges->range(2).page_frames, ElementsAre(30));
}

TEST(PageRangesTest, WordsBehindTheLastRangeAreIgnored) {
  const auto ranges = PageRanges::Parse(std::vector<uint64_t>{Head(4096), 1, 99, 98}, 1);
  ASSERT_TRUE(ranges.ok()) << ranges.status();
  EXPECT_THAT(ranges->range(0).page_frames, ElementsAre(1));
  EXPECT_EQ(ranges->word_count(), 2u);
}

TEST(PageRangesTest, NoRangeIsRefused) {
  EXPECT_TRUE(Refused({}, 0));
  EXPECT_TRUE(Refused({Head(4096), 1}, 0));
  EXPECT_TRUE(Refused({}, 1));
}

TEST(PageRangesTest, EmptyRangeIsRefused) { EXPECT_TRUE(Refused({Head(0), 1}, 1)); }

TEST(PageRangesTest, OffsetOutsideTheFirstPageIsRefused) {
  EXPECT_FALSE(Refused({Head(1, 4095), 1}, 1));
  EXPECT_TRUE(Refused({Head(1, 4096), 1, 2}, 1));
  EXPECT_TRUE(Refused({Head(1, 0xFFFFFFFF), 1, 2}, 1));
}

TEST(PageRangesTest, OverflowOfCountAndOffsetIsRefused) {
  // One below the first overflow needs a million page frames: refused for those.
  EXPECT_TRUE(Refused({Head(0xFFFFF000), 1}, 1));
  EXPECT_TRUE(Refused({Head(0xFFFFF001), 1}, 1));
  EXPECT_TRUE(Refused({Head(0xFFFFFFFF, 4095), 1}, 1));
  EXPECT_EQ(PageRanges::Parse(std::vector<uint64_t>{Head(0xFFFFF001), 1}, 1).status().message(),
            "range of 4294963201 bytes at offset 0 overflows");
}

TEST(PageRangesTest, EveryMissingPageFrameIsRefused) {
  const std::vector<uint64_t> words = {Head(0x2000), 1, 2, Head(0x2001), 3, 4, 5};
  EXPECT_FALSE(Refused(words, 2));
  for (size_t size = 0; size < words.size(); ++size) {
    EXPECT_TRUE(Refused({words.begin(), words.begin() + size}, 2)) << size;
  }
}

TEST(PageRangesTest, RangeCountBeyondTheWordsIsRefusedBeforeAnythingIsAllocated) {
  EXPECT_TRUE(Refused({Head(4096), 1}, 2));
  EXPECT_TRUE(Refused({Head(4096), 1}, ~size_t{0}));
}

}  // namespace
}  // namespace vmbfs::hyperv
