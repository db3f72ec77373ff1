// Memory that vanishes while it is touched: memfds that are cut short under
// their mapping.

#include "hyperv/guest_memory/guest_access.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

constexpr size_t kPages = 4;

// Pages of 7s in a shared file.
class GuestAccessTest : public ::testing::Test {
 protected:
  GuestAccessTest() : fd_(::memfd_create("guest", MFD_CLOEXEC)) {
    InstallVanishedMemoryHandler();
    InstallVanishedMemoryHandler();  // once more changes nothing
    EXPECT_EQ(::ftruncate(fd_.get(), kPages * kPageBytes), 0);
    void* mapped =
        ::mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    data_ = static_cast<std::byte*>(mapped);
    const std::vector<std::byte> sevens(kPages * kPageBytes, std::byte{7});
    CopyToGuest(data_, sevens.data(), sevens.size());
  }
  ~GuestAccessTest() override { ::munmap(data_, kPages * kPageBytes); }

  void KeepPages(size_t pages) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(pages * kPageBytes)), 0);
  }
  bool IsVanished(const VanishedMemoryWatch& watch, size_t page) {
    const auto start = reinterpret_cast<uintptr_t>(data_) + page * kPageBytes;
    return watch.MissedIn(start, kPageBytes) != 0;
  }

  UniqueFd fd_;
  std::byte* data_ = nullptr;
};

TEST_F(GuestAccessTest, CopyOutOfMemoryThatVanishedGivesZerosFromThere) {
  KeepPages(2);
  std::vector<std::byte> seen(3 * kPageBytes, std::byte{1});
  const VanishedMemoryWatch watch;
  errno = 4711;
  CopyFromGuest(seen.data(), data_ + kPageBytes / 2, seen.size());
  EXPECT_EQ(errno, 4711);
  EXPECT_FALSE(IsVanished(watch, 1));
  EXPECT_TRUE(IsVanished(watch, 2));
  EXPECT_TRUE(IsVanished(watch, 3));
  std::vector<std::byte> expected(3 * kPageBytes);
  std::fill_n(expected.begin(), kPageBytes * 3 / 2, std::byte{7});
  EXPECT_EQ(seen, expected);
}

TEST_F(GuestAccessTest, CopyIntoMemoryThatVanishedIsLostAndLeavesItsNeighboursAlone) {
  KeepPages(2);
  const std::vector<std::byte> bytes(kPageBytes + 8, std::byte{9});
  const VanishedMemoryWatch watch;
  CopyToGuest(data_ + kPageBytes, bytes.data(), bytes.size());
  EXPECT_TRUE(IsVanished(watch, 2));
  KeepPages(kPages);  // grown again: what was written is not there
  std::array<std::byte, 2> file;
  ASSERT_EQ(::pread(fd_.get(), file.data(), 2, 2 * kPageBytes - 1), 2);
  EXPECT_EQ(file, (std::array{std::byte{9}, std::byte{0}}));
}

TEST_F(GuestAccessTest, WordsThatVanishedAreZeroAndTold) {
  KeepPages(1);
  EXPECT_EQ(LoadGuestWord(data_ + 8, std::memory_order_acquire), 0x07070707u);
  {
    const VanishedMemoryWatch watch;
    EXPECT_EQ(LoadGuestWord(data_ + kPageBytes, std::memory_order_acquire), 0u);
    EXPECT_TRUE(IsVanished(watch, 1));
  }
  {
    const VanishedMemoryWatch watch;
    StoreGuestWord(data_ + 2 * kPageBytes, 5, std::memory_order_seq_cst);
    EXPECT_TRUE(IsVanished(watch, 2));
    EXPECT_EQ(LoadGuestWord(data_ + 2 * kPageBytes, std::memory_order_seq_cst), 5u);
  }
  {
    const VanishedMemoryWatch watch;
    EXPECT_EQ(FetchOrGuestWord(data_ + 3 * kPageBytes, 3, std::memory_order_seq_cst), 0u);
    EXPECT_TRUE(IsVanished(watch, 3));
  }
}

TEST_F(GuestAccessTest, WatchTellsOfItsOwnTimeAndThreadOnly) {
  KeepPages(0);
  const VanishedMemoryWatch outer;
  {
    const VanishedMemoryWatch inner;
    LoadGuestWord(data_, std::memory_order_relaxed);
    EXPECT_TRUE(IsVanished(inner, 0));
  }
  EXPECT_FALSE(outer.vanished());
  std::thread([this] { LoadGuestWord(data_ + kPageBytes, std::memory_order_relaxed); }).join();
  EXPECT_FALSE(outer.vanished());
  LoadGuestWord(data_ + 2 * kPageBytes, std::memory_order_relaxed);
  {
    const VanishedMemoryWatch inner;
    EXPECT_FALSE(inner.vanished());
    LoadGuestWord(data_ + 3 * kPageBytes, std::memory_order_relaxed);
    EXPECT_FALSE(IsVanished(inner, 2));
    EXPECT_TRUE(IsVanished(inner, 3));
  }
  EXPECT_TRUE(outer.vanished());
  EXPECT_TRUE(IsVanished(outer, 2));
  EXPECT_FALSE(IsVanished(outer, 3));
}

TEST_F(GuestAccessTest, OuterAccessIsGuardedAgainAfterAnInnerOne) {
  KeepPages(0);
  const VanishedMemoryWatch watch;
  const GuestAccessGuard outer(data_, kPageBytes);
  LoadGuestWord(data_ + 2 * kPageBytes, std::memory_order_relaxed);
  EXPECT_TRUE(IsVanished(watch, 2));
  const std::byte seen = *static_cast<volatile std::byte*>(data_);
  EXPECT_EQ(seen, std::byte{0});
  EXPECT_TRUE(IsVanished(watch, 0));
}

// The same in huge pages, of which this machine may have none: then all of the
// mapping is missing.
TEST_F(GuestAccessTest, HugePageThatIsMissingIsReplacedWhole) {
  constexpr size_t kHugeBytes = 2 << 20;
  const UniqueFd huge(::memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
  if (!huge || ::ftruncate(huge.get(), kHugeBytes) != 0) GTEST_SKIP() << "no huge pages here";
  void* const mapped = ::mmap(nullptr, kHugeBytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_NORESERVE, huge.get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  ASSERT_EQ(::ftruncate(huge.get(), 0), 0);
  std::byte* const data = static_cast<std::byte*>(mapped);
  const VanishedMemoryWatch watch;
  errno = 4711;
  EXPECT_EQ(LoadGuestWord(data + kHugeBytes / 2, std::memory_order_relaxed), 0u);
  EXPECT_EQ(errno, 4711);
  const uintptr_t missed = reinterpret_cast<uintptr_t>(data) + kHugeBytes / 2;
  EXPECT_EQ(watch.MissedIn(missed, 1), missed);
  ::munmap(mapped, kHugeBytes);
}

// What a processor tells of memory that broke, without any that did.
class BrokenMemoryTest : public GuestAccessTest {
 protected:
  static siginfo_t Found(int code, const void* address, int granularity_bits) {
    siginfo_t info{};
    info.si_signo = SIGBUS;
    info.si_code = code;
    info.si_addr = const_cast<void*>(address);
    info.si_addr_lsb = static_cast<int16_t>(granularity_bits);
    return info;
  }
  uintptr_t Address(size_t offset) const { return reinterpret_cast<uintptr_t>(data_) + offset; }
  // The kernel lets a process say this to itself.
  static void Deliver(siginfo_t info) {
    ASSERT_EQ(::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::gettid(), SIGBUS, &info), 0);
  }
};

TEST_F(BrokenMemoryTest, PageThatIsToldByItsStartIsTheFirstByteTouchedInIt) {
  GuestAccessState state;
  state.start = Address(kPageBytes + 100);
  state.end = Address(3 * kPageBytes + 8);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + kPageBytes, 12), state),
            Address(kPageBytes + 100));
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + 2 * kPageBytes, 12), state),
            Address(2 * kPageBytes));
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + 3 * kPageBytes + 4095, 12), state),
            Address(3 * kPageBytes));
  // Its neighbours, and one cache line of it.
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_, 12), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + 4 * kPageBytes, 12), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + kPageBytes, 6), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + kPageBytes + 64, 6), state),
            Address(kPageBytes + 100));
  // A granularity that cannot be.
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + 2 * kPageBytes, 64), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_ + 2 * kPageBytes, -1), state), 0u);
}

TEST_F(BrokenMemoryTest, OtherSignalsAreToldToTheByte) {
  GuestAccessState state;
  state.start = Address(100);
  state.end = Address(108);
  EXPECT_EQ(MissedByte(Found(BUS_ADRERR, data_ + 99, 12), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_ADRERR, data_ + 107, 12), state), Address(107));
  EXPECT_EQ(MissedByte(Found(BUS_ADRERR, data_ + 108, 12), state), 0u);
  EXPECT_EQ(MissedByte(Found(SI_QUEUE, data_ + 100, 12), state), 0u);
  EXPECT_EQ(MissedByte(Found(BUS_MCEERR_AR, data_, 12), GuestAccessState{}), 0u);
}

TEST_F(BrokenMemoryTest, AccessToABrokenPageMeetsZerosAndGoesOn) {
  const VanishedMemoryWatch watch;
  {
    const GuestAccessGuard guard(data_ + kPageBytes + 8, 8);
    Deliver(Found(BUS_MCEERR_AR, data_ + kPageBytes, 12));
  }
  EXPECT_EQ(watch.MissedIn(Address(0), kPages * kPageBytes), Address(kPageBytes + 8));
  EXPECT_EQ(LoadGuestWord(data_ + kPageBytes, std::memory_order_relaxed), 0u);
  EXPECT_EQ(LoadGuestWord(data_ + 2 * kPageBytes, std::memory_order_relaxed), 0x07070707u);
}

TEST_F(BrokenMemoryTest, PageThatNobodyWaitsForIsLeftAlone) {
  const VanishedMemoryWatch watch;
  const GuestAccessGuard guard(data_, kPageBytes);
  Deliver(Found(BUS_MCEERR_AO, data_, 12));
  Deliver(Found(BUS_MCEERR_AO, data_ + kPageBytes, 12));
  EXPECT_FALSE(watch.vanished());
  EXPECT_EQ(LoadGuestWord(data_, std::memory_order_relaxed), 0x07070707u);
}

using GuestAccessDeathTest = GuestAccessTest;

TEST_F(GuestAccessDeathTest, SigbusOutsideGuestAccessEndsTheProcess) {
  KeepPages(0);
  EXPECT_DEATH(*static_cast<volatile std::byte*>(data_) = std::byte{1}, "");
  // Not within the bytes that are touched; and after the access has ended.
  EXPECT_DEATH(
      {
        const GuestAccessGuard guard(data_, kPageBytes);
        static_cast<volatile std::byte*>(data_)[kPageBytes] = std::byte{1};
      },
      "");
  EXPECT_DEATH(
      {
        LoadGuestWord(data_ + kPageBytes, std::memory_order_relaxed);
        *static_cast<volatile std::byte*>(data_) = std::byte{1};
      },
      "");
}

// On the private side of a copy, too.
TEST_F(GuestAccessDeathTest, SigbusOnThePrivateSideOfACopyEndsTheProcess) {
  KeepPages(1);
  EXPECT_DEATH(CopyToGuest(data_, data_ + kPageBytes, 8), "");
  EXPECT_DEATH(CopyFromGuest(data_ + kPageBytes, data_, 8), "");
}

TEST_F(GuestAccessDeathTest, SigbusThatSomebodySentEndsTheProcess) {
  EXPECT_DEATH(
      {
        const GuestAccessGuard guard(nullptr, SIZE_MAX);
        ::raise(SIGBUS);
      },
      "");
}

#if !defined(VMBFS_ASAN) && !defined(VMBFS_TSAN)  // which have ends of their own
TEST_F(GuestAccessDeathTest, ProcessEndsBySigbusItself) {
  KeepPages(0);
  EXPECT_EXIT(*static_cast<volatile std::byte*>(data_) = std::byte{1},
              ::testing::KilledBySignal(SIGBUS), "");
}
#endif

// What CheckVanished makes of it.
class VanishedRegionTest : public ::testing::Test {
 protected:
  static constexpr MemoryRegionDescription kRegion = {
      .id = 3, .gpa = 0x100000, .bytes = kPages * kPageBytes, .file_offset = 0};

  VanishedRegionTest() : fd_(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    InstallVanishedMemoryHandler();
    EXPECT_EQ(::ftruncate(fd_.get(), kPages * kPageBytes), 0);
    EXPECT_TRUE(memory_.AddRegion(kRegion, UniqueFd(::dup(fd_.get()))).ok());
  }

  UniqueFd fd_;
  GuestMemory memory_{GuestMemoryOptions{.allow_unsealed = true}};
};

TEST_F(VanishedRegionTest, RegionIsGivenOutNoMoreUntilItIsAddedAgain) {
  const auto run = memory_.MapRange(0x101000, 8);
  ASSERT_TRUE(run.ok());
  {
    const VanishedMemoryWatch watch;
    LoadGuestWord(run->data, std::memory_order_relaxed);
    EXPECT_TRUE(memory_.CheckVanished(watch).ok());
  }
  ASSERT_EQ(::ftruncate(fd_.get(), kPageBytes), 0);
  EXPECT_TRUE(memory_.MapRange(0x100000, 8).ok());  // nobody touched it yet
  const VanishedMemoryWatch watch;
  LoadGuestWord(run->data, std::memory_order_relaxed);
  const absl::Status vanished = memory_.CheckVanished(watch);
  EXPECT_EQ(vanished.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(vanished.message()), HasSubstr("address 0x101000 of memory region 3"));

  const std::array<uint64_t, 1> frames = {0x100};
  for (const absl::Status& refused :
       {memory_.MapRange(0x100000, 8).status(), memory_.MapPages(frames).status()}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("region 3 vanished"));
  }
  ASSERT_TRUE(memory_.RemoveRegion(3).ok());
  EXPECT_EQ(memory_.CheckVanished(watch).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(::ftruncate(fd_.get(), kPages * kPageBytes), 0);
  ASSERT_TRUE(memory_.AddRegion(kRegion, UniqueFd(::dup(fd_.get()))).ok());
  EXPECT_TRUE(memory_.MapPages(frames).ok());
}

// Two regions, in whose first and second pages words are read within one watch.
class VanishedRegionsTest : public VanishedRegionTest {
 protected:
  static constexpr uint64_t kOtherGpa = 0x200000;

  VanishedRegionsTest() { AddOther(4, kOtherGpa); }
  void AddOther(uint32_t id, uint64_t gpa) {
    MemoryRegionDescription other = kRegion;
    other.id = id;
    other.gpa = gpa;
    EXPECT_TRUE(memory_.AddRegion(other, UniqueFd(::dup(fd_.get()))).ok());
  }
  void Read(uint64_t gpa) {
    const auto run = memory_.MapRange(gpa, 4);
    ASSERT_TRUE(run.ok()) << run.status();
    LoadGuestWord(run->data, std::memory_order_relaxed);
  }
  bool IsGivenOut(uint64_t gpa) const { return memory_.MapRange(gpa, 4).ok(); }
};

TEST_F(VanishedRegionsTest, AllThatVanishInOneTurnAreGivenOutNoMore) {
  AddOther(5, 0x300000);
  ASSERT_EQ(::ftruncate(fd_.get(), 0), 0);
  const VanishedMemoryWatch watch;
  Read(0x101000);
  Read(kOtherGpa);
  EXPECT_THAT(std::string(memory_.CheckVanished(watch).message()),
              HasSubstr("address 0x101000 of memory region 3 cannot be accessed any more, nor can "
                        "parts of 1 other regions"));
  EXPECT_FALSE(IsGivenOut(0x100000));
  EXPECT_FALSE(IsGivenOut(kOtherGpa));
  EXPECT_TRUE(IsGivenOut(0x300000));  // nobody touched it
}

TEST_F(VanishedRegionsTest, MoreMissesThanAreRememberedCostAllRegions) {
  constexpr size_t kManyPages = GuestAccessState::kMissesMax + 1;
  const UniqueFd many(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(many.get(), kManyPages * kPageBytes), 0);
  ASSERT_TRUE(
      memory_
          .AddRegion({.id = 5, .gpa = 0x300000, .bytes = kManyPages * kPageBytes, .file_offset = 0},
                     UniqueFd(::dup(many.get())))
          .ok());
  ASSERT_EQ(::ftruncate(many.get(), 0), 0);
  const VanishedMemoryWatch watch;
  for (size_t page = 0; page + 1 < kManyPages; ++page) Read(0x300000 + page * kPageBytes);
  {
    const VanishedMemoryWatch inner;
    EXPECT_TRUE(memory_.CheckVanished(inner).ok());
  }
  EXPECT_FALSE(memory_.CheckVanished(watch).ok());
  EXPECT_TRUE(IsGivenOut(0x100000));

  ASSERT_TRUE(memory_.RemoveRegion(5).ok());
  AddOther(5, 0x300000);
  const VanishedMemoryWatch inner;
  ASSERT_EQ(::ftruncate(fd_.get(), 0), 0);
  Read(kOtherGpa);
  EXPECT_FALSE(memory_.CheckVanished(inner).ok());
  EXPECT_FALSE(IsGivenOut(0x100000));
  EXPECT_FALSE(IsGivenOut(kOtherGpa));
}

}  // namespace
}  // namespace vmbfs::hyperv
