#include "hyperv/guest/guest_ram.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::hyperv {
namespace {

constexpr uint64_t kPages = 64;

std::unique_ptr<GuestRam> Ram() { return *GuestRam::Create(kPages * kPageBytes); }

TEST(GuestRamTest, MemfdIsSealedAgainstShrinkingAndGrowing) {
  const int seals = fcntl(Ram()->fd(), F_GET_SEALS);
  EXPECT_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
}

TEST(GuestRamTest, PartsOfPagesAreRefused) {
  EXPECT_EQ(GuestRam::Create(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GuestRam::Create(kPageBytes + 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GuestRamTest, ContiguousPagesAreConsecutiveAndNeverPageZero) {
  const std::unique_ptr<GuestRam> ram = Ram();
  EXPECT_THAT(*ram->Allocate(4, RamLayout::kContiguous), testing::ElementsAre(1, 2, 3, 4));
  const std::vector<uint64_t> hole = *ram->Allocate(2, RamLayout::kContiguous);
  EXPECT_THAT(*ram->Allocate(1, RamLayout::kContiguous), testing::ElementsAre(7));
  ram->Free(hole);
  EXPECT_THAT(*ram->Allocate(3, RamLayout::kContiguous), testing::ElementsAre(8, 9, 10));
  EXPECT_THAT(*ram->Allocate(2, RamLayout::kContiguous), testing::ElementsAre(5, 6));
}

TEST(GuestRamTest, ScatteredPagesHaveNoNeighboursWhileRamAllowsIt) {
  const std::unique_ptr<GuestRam> ram = Ram();
  const std::vector<uint64_t> frames = *ram->Allocate(20, RamLayout::kScattered);
  ASSERT_EQ(frames.size(), 20u);
  for (uint64_t frame : frames) {
    EXPECT_THAT(frames, testing::Not(testing::Contains(frame + 1)));
  }
}

TEST(GuestRamTest, AllPagesButTheFirstCanBeHadAndNoMore) {
  const std::unique_ptr<GuestRam> ram = Ram();
  std::vector<uint64_t> frames = *ram->Allocate(kPages - 1, RamLayout::kScattered);
  std::sort(frames.begin(), frames.end());
  EXPECT_EQ(frames.front(), 1u);
  EXPECT_EQ(frames.back(), kPages - 1);
  EXPECT_EQ(std::unique(frames.begin(), frames.end()), frames.end());
  EXPECT_EQ(ram->Allocate(1, RamLayout::kContiguous).status().code(),
            absl::StatusCode::kResourceExhausted);
  ram->Free(std::vector<uint64_t>{9});
  EXPECT_THAT(*ram->Allocate(1, RamLayout::kScattered), testing::ElementsAre(9));
}

TEST(GuestRamTest, PagesGoBackWithTheirLastHolder) {
  const std::unique_ptr<GuestRam> ram = Ram();
  auto pages =
      std::make_shared<GuestPages>(*ram, *ram->Allocate(kPages - 1, RamLayout::kContiguous));
  auto second_holder = pages;
  EXPECT_EQ(pages->Page(2).data(), ram->bytes().data() + 3 * kPageBytes);
  pages.reset();
  EXPECT_FALSE(ram->Allocate(1, RamLayout::kContiguous).ok());
  second_holder.reset();
  EXPECT_TRUE(ram->Allocate(kPages - 1, RamLayout::kContiguous).ok());
}

}  // namespace
}  // namespace vmbfs::hyperv
