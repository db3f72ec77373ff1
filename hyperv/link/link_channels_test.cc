// Whole runs at the SynIC level: a scripted VMM and guest on one side, a fake
// device on the other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "hyperv/link/link_channels_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Deliveries, LinkChannelsTest,
                         ::testing::Values(kLinkDeliveryDirect, kLinkDeliveryMediated),
                         DeliveryName);

TEST_P(LinkChannelsTest, WholeLifeFromHelloToDisconnect) {
  {
    Vmm vmm(harness_.path());
    ASSERT_TRUE(vmm.SetUp());
    EXPECT_TRUE(harness_.status().started);
    ASSERT_TRUE(vmm.ConnectBus());
    ASSERT_TRUE(vmm.CreateRingGpadl());
    EXPECT_FALSE(IsOpen());
    ASSERT_EQ(vmm.OpenChannel(), 0u);
    EXPECT_TRUE(IsOpen());
    EXPECT_TRUE(vmm.HasDoorbell(vmm.channel_connection()));  // set before the guest is told
    EXPECT_TRUE(device_->WaitForRuns(1));                    // looked after without a signal
    GuestRings rings(vmm);
    for (int i = 0; i < 100; ++i) Exchange(vmm, rings, "request " + std::to_string(i));
    const LinkChannelStatus channel = Channel();
    EXPECT_TRUE(channel.open);
    EXPECT_EQ(channel.bus.state, "open");
    EXPECT_GE(channel.doorbells, 1u);
    EXPECT_GE(channel.signals, 1u);

    Close(vmm);
    EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
    EXPECT_TRUE(device_->WaitForEvents(2));
    EXPECT_FALSE(IsOpen());

    ASSERT_EQ(vmm.OpenChannel(), 0u);
    Remove();  // revoke
    EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open", "Close"));
    const std::vector<std::byte> rescind = vmm.TakeMessage();
    EXPECT_EQ(WordAt(rescind, 0), 2u);
    EXPECT_EQ(WordAt(rescind, 8), kChannel);
    EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
  }
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
  // The next connection finds the devices of now.
  Add();
  Vmm next(harness_.path());
  OpenAll(next);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open", "Close", "Open"));
}

TEST_P(LinkChannelsTest, DisconnectClosesTheDeviceAndKeepsIt) {
  {
    Vmm vmm(harness_.path());
    OpenAll(vmm);
  }
  EXPECT_TRUE(device_->WaitForEvents(2));
  EXPECT_FALSE(IsOpen());
  Vmm again(harness_.path());
  OpenAll(again);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open"));
}

TEST_P(LinkChannelsTest, GuestIsSignalledOnceMoreAfterOpen) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);  // the device has nothing to say
  EXPECT_TRUE(vmm.WaitForEvent(0, kChannel));
}

TEST_P(LinkChannelsTest, DeviceThatRefusesOpenMakesItFailAndIsNotClosed) {
  device_->FailOpen(absl::InternalError("out of order"));
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  EXPECT_EQ(vmm.OpenChannel(), kFailure);
  EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
  EXPECT_THAT(device_->events(), ElementsAre("Open"));
  EXPECT_THAT(harness_.status().last_error, HasSubstr("out of order"));
  device_->FailOpen(absl::OkStatus());
  EXPECT_EQ(vmm.OpenChannel(), 0u);
}

TEST_P(LinkChannelsTest, OpenIsRefusedWhileNotAllowed) {
  const auto allow = [&](bool allowed) {
    harness_.Do([&](LinkServer& server) {
      server.SetOpenAllowed(*device_, allowed);
      return 0;
    });
  };
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  allow(false);
  EXPECT_EQ(vmm.OpenChannel(), kFailure);
  allow(true);
  EXPECT_EQ(vmm.OpenChannel(), 0u);
  EXPECT_THAT(device_->events(), ElementsAre("Open"));
}

TEST_P(LinkChannelsTest, RingsOutsideMemoryAndMissingVpsMakeOpenFail) {
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  EXPECT_EQ(vmm.OpenChannel(1), kFailure);  // there is VP 0 only
  LinkMemDelWire rings{};
  rings.id = TestVmm::kRingRegion;
  ASSERT_TRUE(vmm.Ask(LinkType::kMemDel, WireBytes(rings)));
  EXPECT_EQ(vmm.OpenChannel(), kFailure);
  EXPECT_TRUE(device_->events().empty());
}

TEST_P(LinkChannelsTest, ChannelWithoutInterruptIsServedAndNeverSignalled) {
  Vmm vmm(harness_.path());
  OpenAll(vmm, 0x00040000, 0xFFFFFFFF);
  GuestRings rings(vmm);
  rings.Write("quiet");
  vmm.RingDoorbell(vmm.channel_connection());
  std::string echo;
  while (echo.empty()) echo = rings.Read(5);
  EXPECT_EQ(echo, "quiet");
  EXPECT_EQ(Channel().signals, 0u);
  EXPECT_EQ(vmm.page(2)[2 * 256], std::byte{0});
}

TEST_P(LinkChannelsTest, SignalFrameServesWhereNoDoorbellDoes) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  rings.Write("by frame");
  LinkSignalWire signal{};
  signal.connection = vmm.channel_connection();
  vmm.Send(LinkType::kSignal, WireBytes(signal));
  std::string echo;
  while (echo.empty()) {
    ASSERT_TRUE(vmm.WaitForEvent(0, kChannel));
    echo = rings.Read(8);
  }
  EXPECT_EQ(echo, "by frame");
}

TEST_P(LinkChannelsTest, DeviceThatHasMoreGetsMoreTurnsWithoutSignals) {
  Vmm vmm(harness_.path());
  device_->WantTurns(1000);
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1000));
  const int runs = device_->runs();
  harness_.Do([&](LinkServer&) {
    device_->Wake();
    return 0;
  });
  EXPECT_TRUE(device_->WaitForRuns(runs + 1));
}

TEST_P(LinkChannelsTest, FaultEndsServiceUntilTheGuestReopens) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  device_->FailRun(absl::InvalidArgumentError("packet refused " + std::string(5000, 'x')));
  vmm.RingDoorbell(vmm.channel_connection());
  EXPECT_TRUE(device_->WaitForEvents(2));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  LinkChannelStatus channel = Channel();
  EXPECT_THAT(channel.fault, HasSubstr("packet refused"));
  EXPECT_LE(channel.fault.size(), 512u);
  EXPECT_EQ(channel.faults, 1u);
  EXPECT_FALSE(channel.open);
  EXPECT_EQ(channel.bus.state, "open");  // for the guest
  EXPECT_TRUE(IsOpen());
  ASSERT_EQ(harness_.faults().size(), 1u);
  EXPECT_THAT(harness_.faults()[0], HasSubstr("packet refused"));
  const int runs = device_->runs();
  vmm.RingDoorbell(vmm.channel_connection());
  LinkSignalWire signal{};
  signal.connection = vmm.channel_connection();
  ASSERT_TRUE(vmm.Ask(LinkType::kSignal, WireBytes(signal)));

  device_->FailRun(absl::OkStatus());
  Close(vmm);
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open"));
  EXPECT_TRUE(device_->WaitForRuns(runs + 1));
  channel = Channel();
  EXPECT_EQ(channel.fault, "");
  EXPECT_EQ(channel.faults, 1u);
}

// As Linux does when it panics: the pending flag is overlooked, nobody writes
// EOM (shared/specs/vmbus.md section 1.1, rule 3).
TEST_P(LinkChannelsTest, MessageBehindASlotThatIsEmptiedWithoutEomComesAllTheSame) {
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  std::byte* const slot = vmm.page(1) + 2 * 256;
  slot[0] = std::byte{9};  // somebody else's
  vmm.Post(VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0}));
  ASSERT_TRUE(vmm.WaitUntil([&] { return slot[5] == std::byte{1}; }));  // pending
  EXPECT_EQ(slot[0], std::byte{9});
  slot[0] = std::byte{0};
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 15u);
}

TEST_P(LinkChannelsTest, GuestThatTakesItsTimeGetsEveryMessageInOrder) {
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  vmm.Post(VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0}));
  vmm.Post(VmbusMessage(3, {}));
  vmm.Post(VmbusMessage(16, {}));
  for (const uint32_t type : {15u, 1u, 4u, 17u}) {
    ASSERT_TRUE(vmm.WaitUntil([&] { return vmm.SlotIsFull(); }));
    vmm.SetSynic(0, false);  // meanwhile it cannot be delivered to
    EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), type);
    ASSERT_TRUE(vmm.Ask(LinkType::kSignal, std::vector<std::byte>(8)));
    EXPECT_FALSE(vmm.SlotIsFull());
    vmm.SetSynic(0, true);
  }
}

}  // namespace
}  // namespace vmbfs::hyperv
