// The memory that one VM can make its server hold is bounded by a constant,
// whatever its guest and its VMM do: each limit is driven to its end, and the
// server's process is looked at from outside.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "hyperv/gpadl/gpadl_table.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_format.h"
#include "hyperv/pipe/gpa_direct_table.h"
#include "tests/limits/hostile_vm.h"
#include "tests/limits/server_process.h"

namespace vmbfs {
namespace {

using hyperv::GpaDirectTable;
using hyperv::GpadlTable;
using hyperv::GuestMemory;

constexpr size_t kKiB = 1024;
constexpr size_t kChannels = 2;  // imc and boot

// What a guest can make its server hold while its VMM keeps to the rules: the
// limits, each times what one costs, with the allocator's own part.
constexpr size_t kGuestBytesMax =
    // A GPADL: two nodes of maps, and the blocks of its lists.
    GpadlTable::kGpadlsMax * 384
    // A page of one: its number, and a range where each page is a range. (While
    // it is incomplete: two words.)
    + GpadlTable::kPageFramesMax * 32
    // A page of an open ring: the copy of its number, the run it is found in,
    // and the pointer to it.
    + kChannels * HostileVm::kRingPages * 56
    // A registration, and a page of one as of a GPADL.
    + kChannels * (GpaDirectTable::kRegistrationsMax * 256 + GpaDirectTable::kPagesMax * 32)
    // A channel: its object and a largest message; and a read that waits for a disk,
    // of a slice of an RDMA read at most.
    + kChannels * (32 + 256) * kKiB
    // A processor: registers, and two pages found in memory.
    + hyperv::kLinkVpsMax * 192
    // An interrupt source that is kept (Synic::kIdleSintsMax, one a channel, and
    // one that comes): a queue, a descriptor that is waited for.
    + (64 + kChannels + 1) * 2 * kKiB
    // A region, a post that waits, a frame to the VMM in a buffer of its own
    // (LinkConnection::kOutputFramesHigh).
    + GuestMemory::kRegionsMax * 512 + hyperv::kLinkPostsMax * 512 +
    64 * 512
    // Code that ran for the first time, stacks, what is shared by all VMs.
    + 1024 * kKiB;

// And what both can, when the VMM leaves questions unanswered and frames unread.
constexpr size_t kVmBytesMax =
    kGuestBytesMax
    // A request to the VMM (LinkSession::kPendingMax) keeps what it was for.
    + 16'384 * kKiB
    // An interrupt source that the VMM does not hand over, and who waits for one
    // (Synic::kWaitersMax).
    + hyperv::kLinkVpsMax * 1536 +
    4096 * kKiB
    // A message to the guest (Synic::kMessagesMax).
    + 16'384 * 384
    // A frame to the VMM (LinkConnection::kOutputFramesMax), with the text of a
    // refusal.
    + 8192 * (128 + hyperv::kLinkErrorTextBytesMax);

// Two eventfds an interrupt source; a channel's doorbell and its copy on the way
// to the VMM; one a region; the connection, and one that is refused.
constexpr size_t kDescriptorsMax =
    2 * (64 + kChannels + 1) + 2 * kChannels + GuestMemory::kRegionsMax + 2;

// What may stay when the VMM has gone: code that ran, and pages of which a part
// is in use.
constexpr size_t kLeftBytesMax = 1024 * kKiB;

// Sanitizers hold memory of their own.
#if defined(VMBFS_ASAN) || defined(VMBFS_TSAN)
constexpr bool kMemoryIsOurs = false;
#else
constexpr bool kMemoryIsOurs = true;
#endif

class MemoryBoundTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = ServerProcess::Start(std::getenv("VMBFS_ONE_VM_SERVER"));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto start = server_->Look();
    ASSERT_TRUE(start.ok()) << start.status();
    start_ = *start;
  }

  void Connect() {
    vm_.reset();
    auto vm = HostileVm::Connect(server_->socket_path());
    ASSERT_TRUE(vm.ok()) << vm.status();
    vm_ = *std::move(vm);
    Expect(vm_->ConnectBus());
    ASSERT_EQ(vm_->channels(), kChannels);
  }

  static void Expect(const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; }
  template <typename Value>
  static void Expect(const absl::StatusOr<Value>& value, Value expected) {
    ASSERT_TRUE(value.ok()) << value.status();
    ASSERT_EQ(*value, expected);
  }

  // What the server holds beyond what it held at its start.
  ServerProcess::Holdings Grown() {
    const auto now = server_->Look();
    if (!now.ok()) {
      ADD_FAILURE() << now.status();
      return {};
    }
    return {
        .private_bytes = now->private_bytes - std::min(now->private_bytes, start_.private_bytes),
        .descriptors = now->descriptors - std::min(now->descriptors, start_.descriptors)};
  }

  void ExpectWithin(size_t bytes_max, std::string_view what) {
    const ServerProcess::Holdings grown = Grown();
    std::cout << what << ": " << grown.private_bytes / kKiB << " of " << bytes_max / kKiB
              << " KiB, " << grown.descriptors << " of " << kDescriptorsMax << " descriptors"
              << std::endl;
    if (kMemoryIsOurs) {
      EXPECT_LE(grown.private_bytes, bytes_max) << what;
    }
    EXPECT_LE(grown.descriptors, kDescriptorsMax) << what;
  }

  void ExpectLittleIsLeft() {
    vm_.reset();
    constexpr int kLooksMax = 600;
    ServerProcess::Holdings grown = Grown();
    for (int look = 0; grown.descriptors > 0 && look < kLooksMax; ++look) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      grown = Grown();
    }
    ASSERT_EQ(grown.descriptors, 0u);  // it has seen the end
    ExpectWithin(kLeftBytesMax, "after the connection");
  }

  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<HostileVm> vm_;
  ServerProcess::Holdings start_;
};

// Statement 37 of shared/specs/vmbus.md section 13, and everything else a guest
// can ask for, at the same time.
TEST_F(MemoryBoundTest, GuestThatAsksForAllItCanStaysBelowItsBound) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  ExpectWithin(kGuestBytesMax, "connected");

  // Half of the words of each are pages.
  constexpr size_t kPagesBegunMax = 0xFFFF / 8 - 0xFFFF / 8 / 2;
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->BeginGpadls(), GpadlTable::kPageFramesMax / kPagesBegunMax));
  ExpectWithin(kGuestBytesMax, "incomplete GPADLs");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->ConnectBus()));

  for (uint32_t channel_id = 1; channel_id <= kChannels; ++channel_id) {
    ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenLargest(channel_id)));
  }
  ExpectWithin(kGuestBytesMax, "largest rings");

  constexpr uint32_t kHandles = GpaDirectTable::kRegistrationsMax;
  for (uint32_t channel_id = 1; channel_id <= kChannels; ++channel_id) {
    for (int time = 0; time < 3; ++time) {  // each in place of the one before
      ASSERT_NO_FATAL_FAILURE(
          Expect(vm_->Register(channel_id, kHandles, GpaDirectTable::kPagesMax / kHandles)));
    }
  }
  ExpectWithin(kGuestBytesMax, "registrations");

  // The largest that all fit with the rings: both limits are reached.
  constexpr size_t kPagesOfOne = (GpadlTable::kPageFramesMax - kChannels * HostileVm::kRingPages) /
                                 (GpadlTable::kGpadlsMax - kChannels);
  ASSERT_NO_FATAL_FAILURE(
      Expect(vm_->CreateGpadls(100'000, kPagesOfOne), GpadlTable::kGpadlsMax - kChannels));
  ExpectWithin(kGuestBytesMax, "100,000 GPADLs");

  ASSERT_NO_FATAL_FAILURE(Expect(vm_->VisitEveryInterruptSource(1)));
  ExpectWithin(kGuestBytesMax, "65,536 interrupt sources");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->FloodEvents(1, 100'000)));
  ExpectWithin(kGuestBytesMax, "events");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->AddRegions(), GuestMemory::kRegionsMax));
  ExpectWithin(kGuestBytesMax, "regions");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->FillPosts()));
  ExpectWithin(kGuestBytesMax, "posts");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->TakeAnswers()));

  ExpectLittleIsLeft();
  ASSERT_NO_FATAL_FAILURE(Connect());  // and the next one is served
}

TEST_F(MemoryBoundTest, InterruptsThatTheVmmWithholdsStayBelowTheVmsBound) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenWithoutInterrupt(6000, true)));
  const size_t at_the_limit_bytes = Grown().private_bytes;
  ExpectWithin(kVmBytesMax, "interrupts withheld");
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenWithoutInterrupt(6000, true)));
  if (kMemoryIsOurs) {
    // As many opens again, of which each would take a KiB; the allocator may take some more.
    EXPECT_LE(Grown().private_bytes, at_the_limit_bytes + 1024 * kKiB);
  }
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenWithoutInterrupt(6000, false)));
  ExpectWithin(kVmBytesMax, "interrupts of all processors withheld");
  ExpectLittleIsLeft();
}

TEST_F(MemoryBoundTest, QuestionsThatTheVmmLeavesOpenStayBelowTheVmsBound) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  // Two questions an open, of which 16,384 may be open: nearly as many.
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenWithoutAnswers(8000)));
  ExpectWithin(kVmBytesMax, "questions left open");
  EXPECT_TRUE(absl::IsUnavailable(vm_->OpenWithoutAnswers(1000)));
  ExpectLittleIsLeft();
}

TEST_F(MemoryBoundTest, ConnectionsThatComeAndGoLeaveNothing) {
  for (int connection = 0; connection < 10; ++connection) {
    ASSERT_NO_FATAL_FAILURE(Connect());
    ASSERT_NO_FATAL_FAILURE(Expect(vm_->OpenLargest(1)));
    ASSERT_NO_FATAL_FAILURE(Expect(vm_->Register(1, 64, 256)));
    ASSERT_NO_FATAL_FAILURE(Expect(vm_->CreateGpadls(1000, 12), size_t{1000}));
  }
  ExpectLittleIsLeft();
}

TEST_F(MemoryBoundTest, FramesThatTheVmmDoesNotReadStayBelowTheVmsBound) {
  ASSERT_NO_FATAL_FAILURE(Connect());
  ASSERT_NO_FATAL_FAILURE(Expect(vm_->ReadNothing()));
  ExpectWithin(kVmBytesMax, "frames left unread");
  ExpectLittleIsLeft();
}

}  // namespace
}  // namespace vmbfs
