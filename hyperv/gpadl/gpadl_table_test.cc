#include "hyperv/gpadl/gpadl_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace vmbfs::hyperv {
namespace {

// The words of one range of whole pages, numbered from `first_page_frame`.
std::vector<uint64_t> Pages(size_t count, uint64_t first_page_frame = 100) {
  std::vector<uint64_t> words = {count * 4096};
  for (size_t i = 0; i < count; ++i) words.push_back(first_page_frame + i);
  return words;
}

absl::StatusOr<GpadlProgress> CreateWhole(GpadlTable& table, uint32_t channel_id, uint32_t gpadl_id,
                                          size_t pages = 4) {
  return table.Create(channel_id, gpadl_id, 8 * (pages + 1), 1, Pages(pages));
}

// Begins a GPADL of four pages without its last two words.
absl::StatusOr<GpadlProgress> Begin(GpadlTable& table, uint32_t channel_id, uint32_t gpadl_id) {
  return table.Create(channel_id, gpadl_id, 40, 1, std::vector<uint64_t>{0x4000, 100, 101});
}

TEST(GpadlTableTest, HeaderWithAllWordsIsAcceptedAtOnceAndJunkBehindIgnored) {
  GpadlTable table;
  std::vector<uint64_t> words = Pages(4);
  words.resize(27, 0xDEAD);
  EXPECT_EQ(*table.Create(1, 5, 40, 1, words), GpadlProgress::kAccepted);
  const PageRanges* ranges = table.Hold(1, 5);
  ASSERT_NE(ranges, nullptr);
  EXPECT_THAT(ranges->range(0).page_frames, testing::ElementsAre(100, 101, 102, 103));
  EXPECT_EQ(table.count(), 1u);
  EXPECT_EQ(table.page_count(), 4u);
}

TEST(GpadlTableTest, BodiesCompleteAGpadlInOrder) {
  GpadlTable table;
  EXPECT_EQ(*Begin(table, 1, 5), GpadlProgress::kIncomplete);
  EXPECT_EQ(table.Hold(1, 5), nullptr);
  const auto first = table.Append(5, std::vector<uint64_t>{102});
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(*first->progress, GpadlProgress::kIncomplete);
  const auto last = table.Append(5, std::vector<uint64_t>{103, 0xDEAD});
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->channel_id, 1u);
  EXPECT_EQ(*last->progress, GpadlProgress::kAccepted);
  EXPECT_THAT(table.Hold(1, 5)->range(0).page_frames, testing::ElementsAre(100, 101, 102, 103));
}

TEST(GpadlTableTest, BodyOfAnUnknownOrCompleteGpadlIsNobodys) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  EXPECT_FALSE(table.Append(5, Pages(1)).has_value());
  EXPECT_FALSE(table.Append(6, Pages(1)).has_value());
}

TEST(GpadlTableTest, DuplicateIdIsRefusedAndTheFirstOneUntouched) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(CreateWhole(table, 1, 5, 9).status()));
  EXPECT_EQ(table.page_count(), 4u);
  EXPECT_TRUE(CreateWhole(table, 2, 5).ok());  // complete ones may share an id
}

TEST(GpadlTableTest, IncompleteIdsAreUniqueOverAllChannels) {
  GpadlTable table;
  ASSERT_TRUE(Begin(table, 1, 5).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(Begin(table, 2, 5).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(CreateWhole(table, 2, 5).status()));
}

TEST(GpadlTableTest, MalformedRangesLeaveTheIdFree) {
  GpadlTable table;
  EXPECT_FALSE(table.Create(1, 5, 16, 1, std::vector<uint64_t>{0, 1}).ok());
  EXPECT_FALSE(table.Create(1, 5, 16, 0, Pages(1)).ok());
  EXPECT_FALSE(table.Create(1, 5, 0, 0, {}).ok());
  EXPECT_FALSE(table.Create(1, 5, 7, 1, {}).ok());
  EXPECT_FALSE(table.Create(1, 5, 16, 2, Pages(1)).ok());
  // Complete with its body, and malformed only then.
  ASSERT_TRUE(table.Create(1, 5, 24, 1, std::vector<uint64_t>{0x3000, 1}).ok());
  EXPECT_TRUE(
      absl::IsInvalidArgument(table.Append(5, std::vector<uint64_t>{2})->progress.status()));
  EXPECT_EQ(table.count(), 0u);
  EXPECT_EQ(table.page_count(), 0u);
  EXPECT_TRUE(CreateWhole(table, 1, 5).ok());
}

TEST(GpadlTableTest, GpadlsAreBounded) {
  GpadlTable table;
  for (uint32_t i = 0; i < GpadlTable::kGpadlsMax; ++i) {
    ASSERT_TRUE(CreateWhole(table, 1, i, 1).ok()) << i;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(CreateWhole(table, 2, 0, 1).status()));
  EXPECT_EQ(table.Teardown(1, 7), GpadlTeardown::kGone);
  EXPECT_TRUE(CreateWhole(table, 2, 0, 1).ok());
}

TEST(GpadlTableTest, IncompleteGpadlsAreBounded) {
  GpadlTable table;
  for (uint32_t i = 0; i < GpadlTable::kIncompleteMax; ++i) ASSERT_TRUE(Begin(table, 1, i).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Begin(table, 1, 1000).status()));
  ASSERT_TRUE(table.Append(0, std::vector<uint64_t>{102, 103}).has_value());
  EXPECT_TRUE(Begin(table, 1, 1000).ok());
}

TEST(GpadlTableTest, PageFramesAreBoundedAndCountedFromTheHeaderOn) {
  GpadlTable table;
  // Eight promises of 8,190 pages leave 16.
  for (uint32_t i = 0; i < 8; ++i) ASSERT_TRUE(table.Create(1, i, 65'535, 1, {}).ok());
  EXPECT_EQ(table.page_count(), 65'520u);
  EXPECT_TRUE(absl::IsResourceExhausted(CreateWhole(table, 1, 100, 17).status()));
  EXPECT_TRUE(CreateWhole(table, 1, 100, 16).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(CreateWhole(table, 1, 101, 1).status()));
  table.EraseChannel(1);
  EXPECT_EQ(table.page_count(), 0u);
  EXPECT_TRUE(CreateWhole(table, 1, 101, 1).ok());
}

TEST(GpadlTableTest, PagesPromisedAndNotUsedAreGivenBack) {
  GpadlTable table;
  std::vector<uint64_t> words = Pages(1);
  words.resize(27);
  ASSERT_EQ(*table.Create(1, 1, 8 * 27, 1, words), GpadlProgress::kAccepted);
  EXPECT_EQ(table.page_count(), 1u);
}

TEST(GpadlTableTest, TeardownNeedsAnAcceptedGpadlOfTheSameChannel) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  ASSERT_TRUE(Begin(table, 1, 6).ok());
  EXPECT_EQ(table.Teardown(2, 5), GpadlTeardown::kRefused);
  EXPECT_EQ(table.Teardown(1, 6), GpadlTeardown::kRefused);
  EXPECT_EQ(table.Teardown(1, 5), GpadlTeardown::kGone);
  EXPECT_EQ(table.Teardown(1, 5), GpadlTeardown::kRefused);
  EXPECT_TRUE(CreateWhole(table, 1, 5).ok());
}

TEST(GpadlTableTest, TeardownOfAHeldRingWaitsForUnhold) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  ASSERT_NE(table.Hold(1, 5), nullptr);
  EXPECT_EQ(table.Teardown(1, 5), GpadlTeardown::kDeferred);
  EXPECT_EQ(table.Teardown(1, 5), GpadlTeardown::kRefused);
  EXPECT_TRUE(absl::IsAlreadyExists(CreateWhole(table, 1, 5).status()));
  EXPECT_TRUE(table.Unhold(1, 5));
  EXPECT_EQ(table.count(), 0u);
}

TEST(GpadlTableTest, UnholdWithoutTeardownKeepsTheGpadl) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  ASSERT_NE(table.Hold(1, 5), nullptr);
  EXPECT_FALSE(table.Unhold(1, 5));
  EXPECT_NE(table.Hold(1, 5), nullptr);
}

TEST(GpadlTableTest, EraseKeepsAHeldRingUntilUnholdAndSaysNothing) {
  for (const bool torn_down : {false, true}) {
    GpadlTable table;
    ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
    ASSERT_TRUE(CreateWhole(table, 1, 6).ok());
    ASSERT_TRUE(Begin(table, 2, 7).ok());
    const PageRanges* ring = table.Hold(1, 5);
    if (torn_down) {
      ASSERT_EQ(table.Teardown(1, 5), GpadlTeardown::kDeferred);
    }
    table.EraseAll();
    EXPECT_EQ(table.count(), 1u);
    EXPECT_EQ(ring->page_count(), 4u);
    EXPECT_FALSE(table.Append(7, Pages(1)).has_value());
    EXPECT_FALSE(table.Unhold(1, 5));
    EXPECT_EQ(table.count(), 0u);
    EXPECT_EQ(table.page_count(), 0u);
  }
}

TEST(GpadlTableTest, EraseChannelLeavesOtherChannelsAlone) {
  GpadlTable table;
  ASSERT_TRUE(CreateWhole(table, 1, 5).ok());
  ASSERT_TRUE(Begin(table, 2, 6).ok());
  ASSERT_TRUE(CreateWhole(table, 2, 7).ok());
  ASSERT_TRUE(CreateWhole(table, 3, 5).ok());
  table.EraseChannel(2);
  EXPECT_EQ(table.count_of(1), 1u);
  EXPECT_EQ(table.count_of(2), 0u);
  EXPECT_EQ(table.count_of(3), 1u);
  EXPECT_TRUE(Begin(table, 2, 6).ok());
}

}  // namespace
}  // namespace vmbfs::hyperv
