// Guest memory that vanishes under a link: files that are not sealed, cut short
// while they are used.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/direct_synic.h"
#include "hyperv/link/fake_device.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/link_server.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kFailure = 0x8000FFFF;
constexpr uint32_t kChannel = 1;
constexpr int kUnsealed = 0;

LinkOptions AllowUnsealed() {
  LinkOptions options;
  options.allow_unsealed_memory = true;
  return options;
}

class LinkMemoryTest : public ::testing::Test {
 protected:
  LinkMemoryTest() {
    InstallVanishedMemoryHandler();
    EXPECT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(device_); }).ok());
  }

  void OpenAll(TestVmm& vmm) {
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.ConnectBus());
    ASSERT_TRUE(vmm.CreateRingGpadl());
    ASSERT_EQ(vmm.OpenChannel(), 0u);
  }
  static void ExpectTurns(TestVmm& vmm, FakeDevice& device) {
    for (int i = 0; i < 10; ++i) {
      const int runs = device.runs();
      vmm.RingDoorbell(vmm.channel_connection());
      ASSERT_TRUE(device.WaitForRuns(runs + 1));
    }
  }
  bool WaitForFaults(size_t count) {
    return harness_.WaitForStatus(
        [&](const LinkStatus& status) { return status.channels.at(0).faults == count; });
  }

  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  LinkHarness harness_{AllowUnsealed()};
};

TEST_F(LinkMemoryTest, UnsealedMemoryIsRefusedWhereItIsNotAllowed) {
  LinkHarness strict;
  TestVmm vmm(strict.path(), 1, kLinkDeliveryDirect, kUnsealed, kUnsealed);
  EXPECT_FALSE(vmm.SetUp());
  EXPECT_THAT(strict.status().last_error, HasSubstr("not allowed for this VM"));
}

TEST_F(LinkMemoryTest, RingThatVanishesFaultsItsChannelAndAnotherVmGoesOn) {
  TestVmm vmm(harness_.path(), 1, kLinkDeliveryDirect, SealShrink(), kUnsealed);
  OpenAll(vmm);
  // Another VM, on the same thread.
  ScratchFolder folder;
  const auto other_device = std::make_shared<FakeDevice>();
  auto other = std::make_unique<LinkServer>(harness_.strand());
  LinkOptions options;
  options.socket_path = folder.Path("other.sock");
  harness_.Do([&](LinkServer&) {
    EXPECT_TRUE(other->Listen(options).ok());
    EXPECT_TRUE(other->Add(other_device).ok());
    other->Start();
    return 0;
  });
  TestVmm other_vmm(options.socket_path);
  OpenAll(other_vmm);
  ExpectTurns(vmm, *device_);
  ExpectTurns(other_vmm, *other_device);

  ASSERT_EQ(::ftruncate(vmm.ring_fd(), 0), 0);
  vmm.RingDoorbell(vmm.channel_connection());
  ASSERT_TRUE(WaitForFaults(1));
  EXPECT_THAT(harness_.faults(), ElementsAre(HasSubstr("vanished: address 0x10")));
  const LinkChannelStatus channel = harness_.status().channels.at(0);
  EXPECT_FALSE(channel.open);
  EXPECT_THAT(channel.fault, HasSubstr("of memory region 2 cannot be accessed"));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  ExpectTurns(other_vmm, *other_device);

  // Whatever still comes for it: a signal, the guest's close, the end.
  vmm.RingDoorbell(vmm.channel_connection());
  vmm.Post(VmbusMessage(7, {kChannel}));
  EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
  harness_.Do([&](LinkServer& server) {
    server.Remove(*device_);
    return 0;
  });
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  ExpectTurns(other_vmm, *other_device);
  harness_.Do([&](LinkServer&) {
    EXPECT_EQ(other->status().channels.at(0).faults, 0u);
    other->Stop();
    other.reset();
    return 0;
  });
}

TEST_F(LinkMemoryTest, ChannelOpensAgainOnceTheVmmHasAddedTheMemoryAgain) {
  TestVmm vmm(harness_.path(), 1, kLinkDeliveryDirect, SealShrink(), kUnsealed);
  OpenAll(vmm);
  ASSERT_EQ(::ftruncate(vmm.ring_fd(), 0), 0);
  vmm.RingDoorbell(vmm.channel_connection());
  ASSERT_TRUE(WaitForFaults(1));
  vmm.Post(VmbusMessage(7, {kChannel}));
  // The file is long enough again, but zeros of our own stand in its place.
  ASSERT_EQ(::ftruncate(vmm.ring_fd(), TestVmm::kRingPages * 4096), 0);
  EXPECT_EQ(vmm.OpenChannel(), kFailure);
  EXPECT_THAT(harness_.refusals(), ElementsAre(HasSubstr("region 2 vanished")));

  LinkMemDelWire gone{};
  gone.id = TestVmm::kRingRegion;
  ASSERT_FALSE(vmm.Ask(LinkType::kMemDel, WireBytes(gone))->error());
  LinkMemAddWire again{};
  again.id = TestVmm::kRingRegion;
  again.gpa = TestVmm::kRingGpa;
  again.bytes = TestVmm::kRingPages * 4096;
  ASSERT_FALSE(vmm.Ask(LinkType::kMemAdd, WireBytes(again), {vmm.ring_fd()})->error());
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  ExpectTurns(vmm, *device_);
}

TEST_F(LinkMemoryTest, OpenOverRingsThatVanishedIsRefused) {
  TestVmm vmm(harness_.path(), 1, kLinkDeliveryDirect, SealShrink(), kUnsealed);
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  ASSERT_EQ(::ftruncate(vmm.ring_fd(), 0), 0);
  // If opening touches the rings it is refused, else the first turn ends it.
  const uint32_t status = vmm.OpenChannel();
  if (status == 0) {
    EXPECT_TRUE(WaitForFaults(1));
  } else {
    EXPECT_THAT(harness_.refusals(), ElementsAre(HasSubstr("guest memory vanished")));
  }
  EXPECT_TRUE(harness_.status().connected);
}

TEST_F(LinkMemoryTest, ConnectionEndsInGoodOrderAfterAllItsMemoryVanished) {
  {
    TestVmm vmm(harness_.path(), 1, kLinkDeliveryDirect, kUnsealed, kUnsealed);
    OpenAll(vmm);
    ASSERT_EQ(::ftruncate(vmm.ram_fd(), 0), 0);
    ASSERT_EQ(::ftruncate(vmm.ring_fd(), 0), 0);
    vmm.RingDoorbell(vmm.channel_connection());
    ASSERT_TRUE(WaitForFaults(1));
    vmm.Post(VmbusMessage(7, {kChannel}));
    vmm.Post(VmbusMessage(16, {}));  // its answer finds no message page
    EXPECT_TRUE(vmm.Ask(LinkType::kPause, {}).has_value());
  }
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
  TestVmm next(harness_.path());
  OpenAll(next);
  ExpectTurns(next, *device_);
}

// The SynIC by itself.
class SynicMemoryTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kMessagePage = 0x1000;
  static constexpr uint64_t kEventPage = 0x2000;
  static constexpr size_t kBytes = 0x3000;

  SynicMemoryTest() : fd_(TestMemory(kBytes, kUnsealed)), irq_(::eventfd(0, EFD_NONBLOCK)) {
    InstallVanishedMemoryHandler();
    Add();
    synic_.SetRunning(true);
    synic_.SetRegisters(
        0, {.scontrol = 1, .siefp = kEventPage | 1, .simp = kMessagePage | 1, .sint2 = 0x41});
    synic_.Acquire(0, 1, [](const absl::Status&) {});
    synic_.SintReady(0, 2, UniqueFd(::dup(irq_.get())), nullptr);
  }

  void Add() {
    EXPECT_TRUE(memory_
                    .AddRegion({.id = 1, .gpa = 0, .bytes = kBytes, .file_offset = 0},
                               UniqueFd(::dup(fd_.get())))
                    .ok());
  }
  void Truncate(size_t bytes) { ASSERT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(bytes)), 0); }
  uint64_t Interrupts() {
    eventfd_t count = 0;
    return ::eventfd_read(irq_.get(), &count) == 0 ? count : 0;
  }
  uint32_t FileWord(uint64_t offset) {
    uint32_t word = 0;
    EXPECT_EQ(::pread(fd_.get(), &word, sizeof(word), static_cast<off_t>(offset)), 4);
    return word;
  }

  UniqueFd fd_;
  UniqueFd irq_;
  GuestMemory memory_{GuestMemoryOptions{.allow_unsealed = true}};
  DirectSynic synic_{memory_, [](DirectSynic&, uint32_t, uint8_t) {}};
};

TEST_F(SynicMemoryTest, MessageWaitsWhileItsPageIsAbsentSinceItVanished) {
  Truncate(0);
  const VanishedMemoryWatch watch;
  const std::vector<std::byte> message(8, std::byte{1});
  synic_.PostMessage(0, 2, message);
  EXPECT_EQ(synic_.queued_messages(), 1u);
  EXPECT_EQ(Interrupts(), 0u);
  EXPECT_FALSE(watch.vanished());  // a device whose turn it is has no fault of it
  Truncate(kBytes);
  synic_.EndOfMessage(0, 2);
  EXPECT_EQ(synic_.queued_messages(), 1u);

  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  Add();
  synic_.MemoryChanged();
  EXPECT_EQ(synic_.queued_messages(), 0u);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(FileWord(kMessagePage + 2 * 256), 1u);  // the message's type
}

TEST_F(SynicMemoryTest, EventFlagIsLostWhileItsPageIsAbsentSinceItVanished) {
  synic_.SignalEvent(0, 5);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(FileWord(kEventPage + 2 * 256), 1u << 5);
  Truncate(kEventPage);
  const VanishedMemoryWatch watch;
  synic_.SignalEvent(0, 6);
  Truncate(kBytes);
  synic_.SignalEvent(0, 7);
  EXPECT_EQ(Interrupts(), 0u);
  EXPECT_FALSE(watch.vanished());
  EXPECT_EQ(FileWord(kEventPage + 2 * 256), 0u);
}

}  // namespace
}  // namespace vmbfs::hyperv
