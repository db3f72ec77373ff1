#include "hyperv/pipe/gpa_direct_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/packet/hex_bytes.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;

// The example of shared/specs/vmbus.md section 5.3: handle 1, writable, 0x1800
// bytes at 0x5000800.
constexpr std::string_view kExampleSetUp =
    "01 00 00 00 01 01 00 00 00 00 18 00 00 00 08 00 00 00 50 00 00 00 00 00 00"
    "01 50 00 00 00 00 00 00";
constexpr std::string_view kExampleTearDown = "01 00 00 00";

struct TestRange {
  uint32_t byte_count = 0;
  uint32_t byte_offset = 0;
  std::vector<uint64_t> page_frames;
};

// `count` pages from their start to their end.
TestRange Pages(size_t count, uint64_t first = 100) {
  TestRange range{.byte_count = static_cast<uint32_t>(count * 4096), .page_frames = {}};
  for (size_t i = 0; i < count; ++i) range.page_frames.push_back(first + i);
  return range;
}

template <typename Value>
void Append(std::vector<std::byte>& bytes, Value value) {
  for (size_t i = 0; i < sizeof(value); ++i) {
    bytes.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
}

std::vector<std::byte> SetUpOf(uint32_t handle, const std::vector<TestRange>& ranges,
                               uint8_t writable = 1) {
  std::vector<std::byte> bytes;
  Append(bytes, handle);
  bytes.push_back(static_cast<std::byte>(writable));
  Append(bytes, static_cast<uint32_t>(ranges.size()));
  for (const TestRange& range : ranges) {
    Append(bytes, range.byte_count);
    Append(bytes, range.byte_offset);
    for (const uint64_t frame : range.page_frames) Append(bytes, frame);
  }
  return bytes;
}

std::vector<std::byte> TearDownOf(uint32_t handle) {
  std::vector<std::byte> bytes;
  Append(bytes, handle);
  return bytes;
}

// What a part is made of, as (offset, bytes, pages).
std::vector<TestRange> All(GpaDirectPart part) {
  std::vector<TestRange> ranges;
  while (const auto range = part.Next()) {
    ranges.push_back({.byte_count = range->byte_count,
                      .byte_offset = range->byte_offset,
                      .page_frames = {range->page_frames.begin(), range->page_frames.end()}});
  }
  return ranges;
}

class GpaDirectTableTest : public ::testing::Test {
 protected:
  absl::StatusCode Find(uint32_t handle, uint64_t offset, uint64_t byte_count) const {
    return table_.FindWritable(handle, offset, byte_count).status().code();
  }

  GpaDirectTable table_;
};

TEST_F(GpaDirectTableTest, ExampleOfTheSpecificationIsReadFromItsUnalignedOffsets) {
  ASSERT_TRUE(table_.SetUp(HexBytes(kExampleSetUp)).ok());
  EXPECT_EQ(table_.count(), 1u);
  EXPECT_EQ(table_.page_count(), 2u);
  const auto ranges = All(*table_.FindWritable(1, 0, 0x1800));
  ASSERT_EQ(ranges.size(), 1u);
  EXPECT_EQ(ranges[0].byte_offset, 0x800u);
  EXPECT_EQ(ranges[0].byte_count, 0x1800u);
  EXPECT_THAT(ranges[0].page_frames, ElementsAre(0x5000, 0x5001));
  EXPECT_EQ(SetUpOf(1, {{0x1800, 0x800, {0x5000, 0x5001}}}), HexBytes(kExampleSetUp));

  ASSERT_TRUE(table_.TearDown(HexBytes(kExampleTearDown)).ok());
  EXPECT_EQ(table_.count(), 0u);
  EXPECT_EQ(table_.page_count(), 0u);
  EXPECT_EQ(Find(1, 0, 1), absl::StatusCode::kNotFound);
}

TEST_F(GpaDirectTableTest, EveryOtherLengthOfTheExampleIsMalformedAndChangesNothing) {
  std::vector<std::byte> message = HexBytes(kExampleSetUp);
  const size_t whole_bytes = message.size();
  message.resize(whole_bytes + 20);
  ASSERT_TRUE(table_.SetUp(SetUpOf(1, {Pages(3)})).ok());
  for (size_t bytes = 0; bytes <= message.size(); ++bytes) {
    if (bytes == whole_bytes) continue;
    EXPECT_TRUE(absl::IsInvalidArgument(table_.SetUp(std::span(message).first(bytes)))) << bytes;
  }
  const std::vector<std::byte> tear_down(9);
  for (size_t bytes = 0; bytes <= tear_down.size(); ++bytes) {
    if (bytes == 4) continue;
    EXPECT_TRUE(absl::IsInvalidArgument(table_.TearDown(std::span(tear_down).first(bytes))))
        << bytes;
  }
  EXPECT_EQ(table_.page_count(), 3u);
}

TEST_F(GpaDirectTableTest, RangesThatNoGpadlMayHaveAreMalformed) {
  for (const std::vector<TestRange>& ranges : std::vector<std::vector<TestRange>>{
           {},
           {{0, 0, {1}}},                        // no bytes
           {{1, 4096, {1, 2}}},                  // begins behind its first page
           {{0xFFFFFFFF, 4095, {1}}},            // overflows
           {{4097, 0, {1}}},                     // a page is missing
           {{4096, 0, {1, 2}}},                  // a page too many
           {{4096, 0, {1}}, {4096, 1, {2}}},     // in the second range
           {{4096, 0, {1, 2}}, {4096, 0, {3}}},  // page taken for a range
       }) {
    EXPECT_TRUE(absl::IsInvalidArgument(table_.SetUp(SetUpOf(1, ranges))));
  }
  // A count of ranges that the message cannot hold.
  std::vector<std::byte> message = HexBytes(kExampleSetUp);
  std::fill_n(message.begin() + 5, 4, std::byte{0xFF});
  EXPECT_TRUE(absl::IsInvalidArgument(table_.SetUp(message)));
  EXPECT_EQ(table_.count(), 0u);
}

TEST_F(GpaDirectTableTest, SetUpOfALiveHandleReplacesIt) {
  ASSERT_TRUE(table_.SetUp(SetUpOf(7, {Pages(4, 100)})).ok());
  ASSERT_TRUE(table_.SetUp(SetUpOf(7, {Pages(2, 200)})).ok());
  EXPECT_EQ(table_.count(), 1u);
  EXPECT_EQ(table_.page_count(), 2u);
  EXPECT_THAT(All(*table_.FindWritable(7, 0, 8192))[0].page_frames, ElementsAre(200, 201));
  EXPECT_EQ(Find(7, 8192, 1), absl::StatusCode::kOutOfRange);
}

TEST_F(GpaDirectTableTest, TearDownOfAnUnknownHandleIsCountedOnly) {
  ASSERT_TRUE(table_.SetUp(SetUpOf(7, {Pages(4)})).ok());
  EXPECT_TRUE(table_.TearDown(TearDownOf(8)).ok());
  EXPECT_EQ(table_.unknown_tear_downs(), 1u);
  EXPECT_EQ(table_.count(), 1u);
}

TEST_F(GpaDirectTableTest, LargestTransferOfTheFirmwareFitsWhereverItBegins) {
  const uint32_t bytes = 7 << 20;
  TestRange range = Pages(1793);
  range.byte_count = bytes;
  range.byte_offset = 4095;
  const auto message = SetUpOf(1, {range});
  EXPECT_LE(message.size(), 14'361u);
  ASSERT_TRUE(table_.SetUp(message).ok());
  EXPECT_EQ(Find(1, 0, bytes), absl::StatusCode::kOk);
}

TEST_F(GpaDirectTableTest, BufferOfTooManyPagesIsNotRegisteredAndTakesItsHandleOut) {
  ASSERT_TRUE(table_.SetUp(SetUpOf(1, {Pages(GpaDirectTable::kPagesOfOneMax)})).ok());
  EXPECT_EQ(table_.page_count(), 1794u);
  ASSERT_TRUE(table_.SetUp(SetUpOf(1, {Pages(GpaDirectTable::kPagesOfOneMax + 1)})).ok());
  EXPECT_EQ(table_.refused(), 1u);
  EXPECT_EQ(table_.page_count(), 0u);
  EXPECT_EQ(Find(1, 0, 1), absl::StatusCode::kNotFound);
}

TEST_F(GpaDirectTableTest, HandlesAreBounded) {
  for (uint32_t handle = 0; handle < GpaDirectTable::kRegistrationsMax; ++handle) {
    ASSERT_TRUE(table_.SetUp(SetUpOf(handle, {Pages(1)})).ok());
  }
  EXPECT_EQ(table_.refused(), 0u);
  ASSERT_TRUE(table_.SetUp(SetUpOf(1000, {Pages(1)})).ok());
  EXPECT_EQ(table_.refused(), 1u);
  EXPECT_EQ(table_.count(), 64u);
  ASSERT_TRUE(table_.SetUp(SetUpOf(63, {Pages(2)})).ok());  // a replacement is no new one
  EXPECT_EQ(table_.refused(), 1u);
  ASSERT_TRUE(table_.TearDown(TearDownOf(0)).ok());
  ASSERT_TRUE(table_.SetUp(SetUpOf(1000, {Pages(1)})).ok());
  EXPECT_EQ(Find(1000, 0, 4096), absl::StatusCode::kOk);
}

TEST_F(GpaDirectTableTest, PagesOfAllHandlesAreBounded) {
  for (uint32_t handle = 0; handle < 20; ++handle) {
    ASSERT_TRUE(table_.SetUp(SetUpOf(handle, {Pages(1700)})).ok());
    EXPECT_LE(table_.page_count(), GpaDirectTable::kPagesMax);
  }
  EXPECT_EQ(table_.count(), 9u);
  EXPECT_EQ(table_.refused(), 11u);
  ASSERT_TRUE(table_.SetUp(SetUpOf(50, {Pages(16'384 - 9 * 1700)})).ok());
  EXPECT_EQ(table_.page_count(), 16'384u);
  ASSERT_TRUE(table_.SetUp(SetUpOf(51, {Pages(1)})).ok());
  EXPECT_EQ(table_.count(), 10u);
}

TEST_F(GpaDirectTableTest, LookUpSaysWhyNot) {
  ASSERT_TRUE(table_.SetUp(SetUpOf(1, {Pages(2)})).ok());
  ASSERT_TRUE(table_.SetUp(SetUpOf(2, {Pages(2)}, 0)).ok());
  EXPECT_EQ(Find(3, 0, 1), absl::StatusCode::kNotFound);
  EXPECT_EQ(Find(2, 0, 1), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Find(1, 0, 8192), absl::StatusCode::kOk);
  EXPECT_EQ(Find(1, 8192, 0), absl::StatusCode::kOk);
  EXPECT_EQ(Find(1, 0, 8193), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Find(1, 8192, 1), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Find(1, 8193, 0), absl::StatusCode::kOutOfRange);
  // A sum that overflows is no way around.
  EXPECT_EQ(Find(1, ~uint64_t{0}, 2), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Find(1, 1, ~uint64_t{0}), absl::StatusCode::kOutOfRange);
}

TEST_F(GpaDirectTableTest, PartsBeginAndEndWithinPagesAndCrossRanges) {
  // 0x1800 bytes in pages 10 and 11, then 0x10 in page 20, then 0x1000 in 30, 31.
  ASSERT_TRUE(table_
                  .SetUp(SetUpOf(
                      1, {{0x1800, 0x800, {10, 11}}, {0x10, 0xFF0, {20}}, {0x1000, 4, {30, 31}}}))
                  .ok());
  EXPECT_TRUE(All(*table_.FindWritable(1, 5, 0)).empty());

  auto part = All(*table_.FindWritable(1, 0x7FF, 2));  // around the end of page 10
  ASSERT_EQ(part.size(), 1u);
  EXPECT_EQ(part[0].byte_offset, 0xFFFu);
  EXPECT_THAT(part[0].page_frames, ElementsAre(10, 11));

  part = All(*table_.FindWritable(1, 0x800, 0x1000));  // page 11, no more
  ASSERT_EQ(part.size(), 1u);
  EXPECT_EQ(part[0].byte_offset, 0u);
  EXPECT_THAT(part[0].page_frames, ElementsAre(11));

  part = All(*table_.FindWritable(1, 0x17FF, 0x12));  // the last byte, all of 20, the first of 30
  ASSERT_EQ(part.size(), 3u);
  EXPECT_EQ(part[0].byte_offset, 0xFFFu);
  EXPECT_EQ(part[0].byte_count, 1u);
  EXPECT_THAT(part[0].page_frames, ElementsAre(11));
  EXPECT_EQ(part[1].byte_count, 0x10u);
  EXPECT_THAT(part[1].page_frames, ElementsAre(20));
  EXPECT_EQ(part[2].byte_offset, 4u);
  EXPECT_EQ(part[2].byte_count, 1u);
  EXPECT_THAT(part[2].page_frames, ElementsAre(30));

  part = All(*table_.FindWritable(1, 0x1800, 0x10));  // all of 20, nothing of its neighbours
  ASSERT_EQ(part.size(), 1u);
  EXPECT_EQ(part[0].byte_offset, 0xFF0u);
  EXPECT_EQ(part[0].byte_count, 0x10u);
  EXPECT_THAT(part[0].page_frames, ElementsAre(20));

  part = All(*table_.FindWritable(1, 0x1810 + 0xFFB, 5));  // begins in the last byte of page 30
  ASSERT_EQ(part.size(), 1u);
  EXPECT_EQ(part[0].byte_offset, 0xFFFu);
  EXPECT_THAT(part[0].page_frames, ElementsAre(30, 31));
}

// The address of each byte, spelt out, is what a part must be a piece of.
TEST_F(GpaDirectTableTest, EveryPartIsThatPieceOfTheBuffersAddresses) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<TestRange> ranges;
    std::vector<uint64_t> addresses;
    for (uint32_t i = 0; i <= random() % 4; ++i) {
      TestRange range{.byte_count = static_cast<uint32_t>(1 + random() % 9000),
                      .byte_offset = static_cast<uint32_t>(random() % 4096),
                      .page_frames = {}};
      for (uint32_t at = 0; at < range.byte_offset + range.byte_count; at += 4096) {
        range.page_frames.push_back(random() % 1000);
      }
      for (uint32_t at = range.byte_offset; at < range.byte_offset + range.byte_count; ++at) {
        addresses.push_back(range.page_frames[at / 4096] * 4096 + at % 4096);
      }
      ranges.push_back(std::move(range));
    }
    ASSERT_TRUE(table_.SetUp(SetUpOf(1, ranges)).ok());
    const size_t offset = random() % (addresses.size() + 1);
    const size_t byte_count = random() % (addresses.size() - offset + 1);
    std::vector<uint64_t> seen;
    for (const TestRange& range : All(*table_.FindWritable(1, offset, byte_count))) {
      ASSERT_EQ(range.page_frames.size(), (range.byte_offset + range.byte_count + 4095) / 4096);
      for (uint32_t at = range.byte_offset; at < range.byte_offset + range.byte_count; ++at) {
        seen.push_back(range.page_frames[at / 4096] * 4096 + at % 4096);
      }
    }
    ASSERT_TRUE(std::equal(seen.begin(), seen.end(), addresses.begin() + offset,
                           addresses.begin() + offset + byte_count));
  }
}

TEST_F(GpaDirectTableTest, RandomMessagesKeepToTheBounds) {
  std::mt19937 random(2);
  const std::vector<std::byte> example = HexBytes(kExampleSetUp);
  for (int round = 0; round < 100'000; ++round) {
    std::vector<std::byte> message = example;
    message[random() % 2] = static_cast<std::byte>(random());
    for (uint64_t changes = random() % 3; changes > 0; --changes) {
      message[random() % message.size()] = static_cast<std::byte>(random() % 32);
    }
    message.resize(random() % 8 == 0 ? random() % 100 : message.size());
    if (random() % 4 == 0) message.resize(std::min<size_t>(message.size(), 4));
    const absl::Status status =
        message.size() == 4 ? table_.TearDown(message) : table_.SetUp(message);
    ASSERT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
    ASSERT_LE(table_.count(), GpaDirectTable::kRegistrationsMax);
    ASSERT_LE(table_.page_count(), GpaDirectTable::kPagesMax);
  }
  EXPECT_GT(table_.refused(), 100u);
}

}  // namespace
}  // namespace vmbfs::hyperv
