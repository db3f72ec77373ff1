// What is mapped twice, when it is not, and what vanishes in it.

#include "hyperv/guest_memory/double_mapping.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kPages = 64;

UniqueFd Memory(unsigned flags = 0) {
  UniqueFd fd(::memfd_create("double_mapping_test", MFD_CLOEXEC | flags));
  EXPECT_EQ(::ftruncate(fd.get(), kPages * kPageBytes), 0);
  return fd;
}

// Two regions of one file's pages, the second one's in front.
class MapTwiceTest : public testing::Test {
 protected:
  MapTwiceTest() {
    for (uint32_t id = 1; id <= 2; ++id) {
      const uint64_t half = kPages / 2 * kPageBytes;
      EXPECT_TRUE(
          memory_
              .AddRegion(
                  {.id = id, .gpa = (id - 1) * half, .bytes = half, .file_offset = (2 - id) * half},
                  UniqueFd(::dup(file_.get())))
              .ok());
    }
  }

  const UniqueFd file_ = Memory();
  MappingBudget ring_budget_{64};
  GuestMemory memory_{GuestMemoryOptions{.allow_unsealed = true, .ring_budget = ring_budget_}};
};

TEST_F(MapTwiceTest, PagesLieSideBySideInTheirOrderAndOnceMoreBehind) {
  const std::array<uint64_t, 5> frames = {3, 4, 60, 2, 31};
  const auto mapping = memory_.MapTwice(frames);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  ASSERT_EQ((*mapping)->bytes(), frames.size() * kPageBytes);
  for (size_t page = 0; page < 2 * frames.size(); ++page) {
    const auto run = memory_.MapRange(frames[page % frames.size()] * kPageBytes, kPageBytes);
    (*mapping)->data()[page * kPageBytes + 7] = static_cast<std::byte>(page + 1);
    EXPECT_EQ(run->data[7], static_cast<std::byte>(page + 1)) << page;
  }
  // A range over the end.
  constexpr std::string_view kText = "over the end";
  std::memcpy((*mapping)->data() + (*mapping)->bytes() - 4, kText.data(), kText.size());
  EXPECT_EQ(std::memcmp((*mapping)->data(), kText.data() + 4, kText.size() - 4), 0);
}

TEST_F(MapTwiceTest, NeighboursAreOnePieceAndPiecesAreCountedTwice) {
  const std::array<uint64_t, 6> frames = {5, 6, 7, 7, 31, 32};  // 32 is the other region's
  const auto mapping = memory_.MapTwice(frames);
  ASSERT_TRUE(mapping.ok()) << mapping.status();
  EXPECT_EQ(ring_budget_.used(), 8u);
}

TEST_F(MapTwiceTest, SixteenPiecesAreMappedAndSeventeenAreNot) {
  std::vector<uint64_t> frames;
  for (uint64_t piece = 0; piece < DoubleMapping::kPiecesMax; ++piece) frames.push_back(2 * piece);
  {
    const auto mapping = memory_.MapTwice(frames);
    EXPECT_TRUE(mapping.ok()) << mapping.status();
    EXPECT_EQ(ring_budget_.used(), 32u);
  }
  EXPECT_EQ(ring_budget_.used(), 0u);
  frames.push_back(50);
  EXPECT_EQ(memory_.MapTwice(frames).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(MapTwiceTest, RingsOfAllVmsShareABudget) {
  const std::vector<uint64_t> frames = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23};
  const auto first = memory_.MapTwice(frames);
  const auto second = memory_.MapTwice(frames);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(memory_.MapTwice(frames).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ring_budget_.used(), 48u);
}

TEST_F(MapTwiceTest, PageOutsideMemoryIsRefusedAsEver) {
  const std::array<uint64_t, 2> frames = {1, kPages};
  EXPECT_EQ(memory_.MapTwice(frames).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MapTwiceTest, MappingOutlivesItsRegion) {
  const std::array<uint64_t, 1> frames = {1};
  const auto mapping = memory_.MapTwice(frames);
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  (*mapping)->data()[0] = std::byte{1};
  EXPECT_EQ((*mapping)->data()[kPageBytes], std::byte{1});
}

// The parameter: in which copy it is missed.
class MapTwiceVanishedTest : public MapTwiceTest, public testing::WithParamInterface<size_t> {};

INSTANTIATE_TEST_SUITE_P(Copies, MapTwiceVanishedTest, testing::Values(0, 1));

TEST_P(MapTwiceVanishedTest, MissedPageTakesItsRegionOutAndNoOther) {
  InstallVanishedMemoryHandler();
  const std::array<uint64_t, 2> frames = {40, 2};
  const auto mapping = memory_.MapTwice(frames);
  ASSERT_TRUE(mapping.ok());
  // What is left are the pages of region 2.
  ASSERT_EQ(::ftruncate(file_.get(), kPages / 2 * kPageBytes), 0);
  const VanishedMemoryWatch watch;
  std::byte* const copy = (*mapping)->data() + GetParam() * (*mapping)->bytes();
  const std::byte value{1};
  CopyToGuest(copy, &value, 1);
  EXPECT_TRUE(memory_.CheckVanished(watch).ok());
  CopyToGuest(copy + kPageBytes, &value, 1);
  const absl::Status vanished = memory_.CheckVanished(watch);
  EXPECT_EQ(vanished.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(vanished.message().find("a page of a ring of memory region 1"), std::string::npos)
      << vanished;
  EXPECT_EQ(memory_.MapTwice(frames).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(memory_.MapTwice(std::array<uint64_t, 1>{40}).ok());
}

TEST(DoubleMappingTest, HugePagesHaveNone) {
  UniqueFd huge(::memfd_create("double_mapping_test", MFD_CLOEXEC | MFD_HUGETLB));
  if (!huge) GTEST_SKIP() << "no huge pages here";
  MappingBudget budget(8);
  const FilePiece piece{huge.get(), 0, kPageBytes};
  EXPECT_FALSE(DoubleMapping::Make(std::span(&piece, 1), budget).ok());
  EXPECT_EQ(budget.used(), 0u);
}

}  // namespace
}  // namespace vmbfs::hyperv
