#include "hyperv/guest_memory/guest_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

UniqueFd Memfd(uint64_t bytes, int seals = F_SEAL_SHRINK) {
  UniqueFd fd(::memfd_create("guest_memory_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, seals), 0);
  return fd;
}

void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& word) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(word));
}

// A region of four pages at 1 MiB that is a memfd's first pages.
class GuestMemoryTest : public ::testing::Test {
 protected:
  static constexpr MemoryRegionDescription kRegion = {
      .id = 1, .gpa = 0x100000, .bytes = 0x4000, .file_offset = 0};

  absl::Status Add(MemoryRegionDescription region) {
    return memory_.AddRegion(region, Memfd(1 << 20));
  }

  GuestMemory memory_;
};

TEST_F(GuestMemoryTest, SealedMemfdIsTakenAndSharedWithItsGiver) {
  UniqueFd fd = Memfd(0x8000);
  const int giver = ::dup(fd.get());
  MemoryRegionDescription region = kRegion;
  region.file_offset = 0x2000;
  ASSERT_TRUE(memory_.AddRegion(region, std::move(fd)).ok());
  EXPECT_EQ(memory_.region_count(), 1u);
  EXPECT_EQ(memory_.total_bytes(), 0x4000u);

  const uint32_t written = 0x12345678;
  ASSERT_EQ(::pwrite(giver, &written, sizeof(written), 0x2000 + 0x1010), ssize_t{sizeof(written)});
  const auto run = memory_.MapRange(0x101010, sizeof(written));
  ASSERT_TRUE(run.ok()) << run.status();
  std::array<std::byte, sizeof(written)> seen;
  CopyFromGuest(seen.data(), run->data, seen.size());
  EXPECT_EQ(std::memcmp(seen.data(), &written, sizeof(written)), 0);

  const std::array<std::byte, 3> answer = {std::byte{1}, std::byte{2}, std::byte{3}};
  CopyToGuest(run->data + 1, answer.data(), answer.size());
  std::array<std::byte, 4> back;
  ASSERT_EQ(::pread(giver, back.data(), back.size(), 0x2000 + 0x1010), 4);
  EXPECT_EQ(back, (std::array{std::byte{0x78}, std::byte{1}, std::byte{2}, std::byte{3}}));
  ::close(giver);
}

TEST_F(GuestMemoryTest, UnsealedMemfdIsRefused) {
  ExpectRefused(memory_.AddRegion(kRegion, Memfd(0x4000, 0)), absl::StatusCode::kInvalidArgument,
                "not sealed against shrinking");
  ExpectRefused(memory_.AddRegion(kRegion, Memfd(0x4000, F_SEAL_GROW)),
                absl::StatusCode::kInvalidArgument, "not sealed against shrinking (seals 0x4)");
}

TEST_F(GuestMemoryTest, UnsealedFileInMemoryIsTakenWhereItIsAllowed) {
  GuestMemory memory(GuestMemoryOptions{.allow_unsealed = true});
  EXPECT_TRUE(memory.AddRegion(kRegion, Memfd(0x4000, 0)).ok());
  // A file of tmpfs that has a name, as QEMU's memory-backend-file makes them.
  UniqueFd named(::open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_TRUE(named);
  ASSERT_EQ(::ftruncate(named.get(), 0x4000), 0);
  MemoryRegionDescription other = kRegion;
  other.id = 2;
  other.gpa = 0x200000;
  EXPECT_TRUE(memory.AddRegion(other, std::move(named)).ok());
}

TEST_F(GuestMemoryTest, AllOtherRulesHoldForUnsealedMemoryToo) {
  GuestMemory memory(GuestMemoryOptions{.allow_unsealed = true});
  ExpectRefused(memory.AddRegion(kRegion, Memfd(0x3FFF, 0)), absl::StatusCode::kInvalidArgument,
                "need more");
  ExpectRefused(memory.AddRegion(kRegion, UniqueFd(::open("/proc/self/exe", O_RDONLY))),
                absl::StatusCode::kInvalidArgument, "no memfd");
  MemoryRegionDescription crooked = kRegion;
  crooked.file_offset = 0x800;
  ExpectRefused(memory.AddRegion(crooked, Memfd(0x8000, 0)), absl::StatusCode::kInvalidArgument,
                "multiples of 4096");
}

TEST_F(GuestMemoryTest, WhatIsNoMemfdIsRefused) {
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  UniqueFd writer(pipe_ends[1]);
  for (int fd : {pipe_ends[0], ::open("/dev/zero", O_RDWR), ::open("/", O_RDONLY),
                 ::open("/proc/self/exe", O_RDONLY), ::open("/proc/self/exe", O_PATH), -1}) {
    ExpectRefused(memory_.AddRegion(kRegion, UniqueFd(fd)), absl::StatusCode::kInvalidArgument,
                  "no memfd");
  }
}

TEST_F(GuestMemoryTest, MemfdThatCannotBeWrittenIsRefused) {
  ExpectRefused(memory_.AddRegion(kRegion, Memfd(0x4000, F_SEAL_SHRINK | F_SEAL_WRITE)),
                absl::StatusCode::kInvalidArgument, "mapping");
  const UniqueFd fd = Memfd(0x4000);
  const std::string path = "/proc/self/fd/" + std::to_string(fd.get());
  ExpectRefused(memory_.AddRegion(kRegion, UniqueFd(::open(path.c_str(), O_RDONLY))),
                absl::StatusCode::kInvalidArgument, "mapping");
}

TEST_F(GuestMemoryTest, MemfdSmallerThanItsRangeIsRefused) {
  MemoryRegionDescription region = kRegion;
  ExpectRefused(memory_.AddRegion(region, Memfd(0x3FFF)), absl::StatusCode::kInvalidArgument,
                "has 16383 bytes; offset 0 and size 16384 need more");
  region.file_offset = 0x1000;
  ExpectRefused(memory_.AddRegion(region, Memfd(0x4000)), absl::StatusCode::kInvalidArgument,
                "offset 4096");
  region.file_offset = ~uint64_t{0xFFF};
  ExpectRefused(memory_.AddRegion(region, Memfd(0x4000)), absl::StatusCode::kInvalidArgument,
                "need more");
}

TEST_F(GuestMemoryTest, NumbersOffPageBoundariesAreRefused) {
  for (const auto member : {&MemoryRegionDescription::gpa, &MemoryRegionDescription::bytes,
                            &MemoryRegionDescription::file_offset}) {
    MemoryRegionDescription region = kRegion;
    region.*member += 0x800;
    ExpectRefused(Add(region), absl::StatusCode::kInvalidArgument, "multiples of 4096");
  }
  MemoryRegionDescription empty = kRegion;
  empty.bytes = 0;
  ExpectRefused(Add(empty), absl::StatusCode::kInvalidArgument, "size is 0");
}

TEST_F(GuestMemoryTest, AddressesBeyondTheLimitAreRefused) {
  MemoryRegionDescription region = kRegion;
  region.gpa = GuestMemory::kGpaLimit;
  ExpectRefused(Add(region), absl::StatusCode::kInvalidArgument, "limit");
  region.gpa = GuestMemory::kGpaLimit - 0x3000;
  ExpectRefused(Add(region), absl::StatusCode::kInvalidArgument, "limit");
  region.gpa = ~uint64_t{0xFFF};  // the sum would overflow
  ExpectRefused(Add(region), absl::StatusCode::kInvalidArgument, "limit");
  region.gpa = GuestMemory::kGpaLimit - 0x4000;
  EXPECT_TRUE(Add(region).ok());
}

TEST_F(GuestMemoryTest, OverlappingRegionsAreRefusedAndNeighboursAreNot) {
  ASSERT_TRUE(Add(kRegion).ok());
  MemoryRegionDescription other = kRegion;
  other.id = 2;
  for (const uint64_t gpa : {0xFD000, 0xFF000, 0x100000, 0x101000, 0x103000}) {
    other.gpa = gpa;
    ExpectRefused(Add(other), absl::StatusCode::kInvalidArgument, "overlap region 1");
  }
  other.gpa = 0xFF000;  // around it
  other.bytes = 0x6000;
  ExpectRefused(Add(other), absl::StatusCode::kInvalidArgument, "overlap region 1");
  other.bytes = 0x1000;
  EXPECT_TRUE(Add(other).ok());
  other = {.id = 3, .gpa = 0x104000, .bytes = 0x1000, .file_offset = 0};
  EXPECT_TRUE(Add(other).ok());
}

TEST_F(GuestMemoryTest, IdInUseIsRefusedUntilItsRegionGoes) {
  ASSERT_TRUE(Add(kRegion).ok());
  MemoryRegionDescription other = kRegion;
  other.gpa = 0x200000;
  ExpectRefused(Add(other), absl::StatusCode::kInvalidArgument, "has this id already");
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  EXPECT_EQ(memory_.total_bytes(), 0u);
  EXPECT_TRUE(Add(other).ok());
  EXPECT_EQ(memory_.RemoveRegion(7).code(), absl::StatusCode::kNotFound);
}

TEST_F(GuestMemoryTest, RegionsAndBytesAreBounded) {
  MemoryRegionDescription region = kRegion;
  region.bytes = GuestMemory::kTotalBytesMax + kPageBytes;
  ExpectRefused(Add(region), absl::StatusCode::kResourceExhausted, "exceed the limit");

  region.bytes = kPageBytes;
  for (region.id = 0; region.id < GuestMemory::kRegionsMax; ++region.id) {
    region.gpa = region.id * kPageBytes;
    ASSERT_TRUE(memory_.AddRegion(region, Memfd(kPageBytes)).ok());
  }
  region.gpa = region.id * kPageBytes;
  ExpectRefused(memory_.AddRegion(region, Memfd(kPageBytes)), absl::StatusCode::kResourceExhausted,
                "at most 256");
}

// Two VMs, of a process that may have three mappings.
TEST(GuestMemoryBudgetTest, MappingsOfAllVmsAreBoundedAndGivenBack) {
  MappingBudget budget(3);
  const auto add = [](GuestMemory& memory, uint32_t id) {
    return memory.AddRegion(
        {.id = id, .gpa = id * kPageBytes, .bytes = kPageBytes, .file_offset = 0},
        Memfd(kPageBytes));
  };
  GuestMemory memory(GuestMemoryOptions{.budget = budget});
  {
    GuestMemory other(GuestMemoryOptions{.budget = budget});
    ASSERT_TRUE(add(memory, 1).ok());
    ASSERT_TRUE(add(memory, 2).ok());
    ASSERT_TRUE(add(other, 1).ok());
    ExpectRefused(add(other, 2), absl::StatusCode::kResourceExhausted,
                  "region 2 refused: the guest memory of all VMs has 3 mappings");
    EXPECT_EQ(other.region_count(), 1u);
    EXPECT_EQ(budget.used(), 3u);

    ASSERT_TRUE(memory.RemoveRegion(1).ok());
    ASSERT_TRUE(add(other, 2).ok());
    ExpectRefused(add(memory, 1), absl::StatusCode::kResourceExhausted, "all VMs");
  }
  EXPECT_EQ(budget.used(), 1u);  // the other is gone
  EXPECT_FALSE(memory
                   .AddRegion({.id = 1, .gpa = 0, .bytes = kPageBytes, .file_offset = 0},
                              Memfd(kPageBytes, F_SEAL_SHRINK | F_SEAL_WRITE))
                   .ok());
  EXPECT_EQ(budget.used(), 1u);  // what was refused has none
}

TEST(GuestMemoryBudgetTest, MappingCountsUntilItsLastRunIsGone) {
  MappingBudget budget(1);
  GuestMemory memory(GuestMemoryOptions{.budget = budget});
  const MemoryRegionDescription region{.id = 1, .gpa = 0, .bytes = kPageBytes, .file_offset = 0};
  ASSERT_TRUE(memory.AddRegion(region, Memfd(kPageBytes)).ok());
  {
    const auto run = memory.MapRange(0, 8);
    ASSERT_TRUE(memory.RemoveRegion(1).ok());
    EXPECT_EQ(memory.AddRegion(region, Memfd(kPageBytes)).code(),
              absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(memory.AddRegion(region, Memfd(kPageBytes)).ok());
}

TEST(GuestMemoryBudgetTest, ProcessHasHalfOfWhatTheKernelAllows) {
  size_t kernel_max = 0;
  ASSERT_TRUE(std::ifstream("/proc/sys/vm/max_map_count") >> kernel_max);
  EXPECT_EQ(MappingBudget::OfProcess().max(), kernel_max / 2);
  GuestMemory memory;
  const size_t before = MappingBudget::OfProcess().used();
  ASSERT_TRUE(
      memory
          .AddRegion({.id = 1, .gpa = 0, .bytes = kPageBytes, .file_offset = 0}, Memfd(kPageBytes))
          .ok());
  EXPECT_EQ(MappingBudget::OfProcess().used(), before + 1);
}

TEST_F(GuestMemoryTest, RefusedAndRemovedDescriptorsAreClosed) {
  UniqueFd refused = Memfd(0x4000, 0);
  const int refused_number = refused.get();
  EXPECT_FALSE(memory_.AddRegion(kRegion, std::move(refused)).ok());
  EXPECT_EQ(::fcntl(refused_number, F_GETFD), -1);

  UniqueFd taken = Memfd(0x4000);
  const int taken_number = taken.get();
  ASSERT_TRUE(memory_.AddRegion(kRegion, std::move(taken)).ok());
  EXPECT_NE(::fcntl(taken_number, F_GETFD), -1);
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  EXPECT_EQ(::fcntl(taken_number, F_GETFD), -1);
}

TEST_F(GuestMemoryTest, PagesAreMappedInOrderAndNeighboursMerged) {
  ASSERT_TRUE(Add(kRegion).ok());
  ASSERT_TRUE(Add({.id = 2, .gpa = 0x104000, .bytes = 0x2000, .file_offset = 0}).ok());
  const std::vector<uint64_t> frames = {0x101, 0x102, 0x100, 0x103, 0x104, 0x105, 0x105};
  const auto runs = memory_.MapPages(frames);
  ASSERT_TRUE(runs.ok()) << runs.status();
  std::byte* first = memory_.MapRange(0x100000, 0x4000)->data;
  std::byte* second = memory_.MapRange(0x104000, 0x2000)->data;
  const std::vector<std::pair<std::byte*, size_t>> expected = {{first + 0x1000, 0x2000},
                                                               {first, 0x1000},
                                                               {first + 0x3000, 0x1000},
                                                               {second, 0x2000},
                                                               {second + 0x1000, 0x1000}};
  ASSERT_EQ(runs->size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((*runs)[i].data, expected[i].first) << i;
    EXPECT_EQ((*runs)[i].bytes, expected[i].second) << i;
  }
}

TEST_F(GuestMemoryTest, PagesOutsideAllRegionsAreRefusedByNumber) {
  ASSERT_TRUE(Add(kRegion).ok());
  for (const uint64_t frame :
       {uint64_t{0xFF}, uint64_t{0x104}, uint64_t{0}, (uint64_t{1} << 52) + 0x100, ~uint64_t{0}}) {
    const std::array<uint64_t, 2> frames = {0x100, frame};
    EXPECT_EQ(memory_.MapPages(frames).status().code(), absl::StatusCode::kInvalidArgument)
        << frame;
  }
  const std::array<uint64_t, 1> frames = {0x104};
  EXPECT_THAT(std::string(memory_.MapPages(frames).status().message()), HasSubstr("0x104"));
}

TEST_F(GuestMemoryTest, RangesMustLieWithinOneRegion) {
  ASSERT_TRUE(Add(kRegion).ok());
  ASSERT_TRUE(Add({.id = 2, .gpa = 0x104000, .bytes = 0x1000, .file_offset = 0}).ok());
  EXPECT_TRUE(memory_.MapRange(0x100001, 0x3FFF).ok());
  EXPECT_FALSE(memory_.MapRange(0x100001, 0x4000).ok());
  EXPECT_FALSE(memory_.MapRange(0xFFFFF, 2).ok());
  EXPECT_FALSE(memory_.MapRange(0x105000, 1).ok());
  EXPECT_FALSE(memory_.MapRange(0x100000, ~uint64_t{0}).ok());
}

TEST_F(GuestMemoryTest, RunOutlivesItsRegion) {
  ASSERT_TRUE(Add(kRegion).ok());
  const std::array<uint64_t, 1> frames = {0x100};
  const auto runs = memory_.MapPages(frames);
  ASSERT_TRUE(runs.ok());
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  EXPECT_FALSE(memory_.MapPages(frames).ok());
  const std::byte value{7};
  CopyToGuest((*runs)[0].data, &value, 1);
  std::byte seen{};
  CopyFromGuest(&seen, (*runs)[0].data, 1);
  EXPECT_EQ(seen, value);
}

TEST_F(GuestMemoryTest, RegionHoldsAnyTellsWhoseThePagesAre) {
  ASSERT_TRUE(Add(kRegion).ok());
  ASSERT_TRUE(Add({.id = 2, .gpa = 0x200000, .bytes = 0x1000, .file_offset = 0}).ok());
  const std::array<uint64_t, 3> frames = {0x50, 0x103, ~uint64_t{0}};
  EXPECT_TRUE(memory_.RegionHoldsAny(1, frames));
  EXPECT_FALSE(memory_.RegionHoldsAny(2, frames));
  EXPECT_FALSE(memory_.RegionHoldsAny(1, {}));
}

}  // namespace
}  // namespace vmbfs::hyperv
