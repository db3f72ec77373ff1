// What happens to open channels at the SynIC level: memory that goes, pause,
// reset, unload, other processors, devices that come and go.

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

TEST_P(LinkChannelsTest, MemoryThatGoesFaultsItsChannelBeforeTheAnswer) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  LinkMemDelWire ram{};
  ram.id = TestVmm::kRingRegion;
  const auto reply = vmm.Ask(LinkType::kMemDel, WireBytes(ram));
  ASSERT_TRUE(reply && !reply->error());
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_THAT(Channel().fault, HasSubstr("memory region 2"));
  EXPECT_EQ(harness_.status().memory_regions, 1u);
  Close(vmm);
  EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
}

TEST_P(LinkChannelsTest, PauseHoldsTurnsMessagesAndPostsUntilResume) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  EXPECT_TRUE(vmm.WaitForEvent(0, kChannel));  // the one after open
  GuestRings rings(vmm);
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  EXPECT_TRUE(harness_.status().paused);
  const int runs = device_->runs();
  const uint64_t doorbells = Channel().doorbells;
  const uint64_t acknowledged = vmm.acknowledged();
  const uint64_t messages_sent = vmm.messages_sent();

  rings.Write("patience");
  vmm.RingDoorbell(vmm.channel_connection());
  EXPECT_TRUE(harness_.WaitForStatus(
      [&](const LinkStatus& status) { return status.channels[0].doorbells > doorbells; }));
  vmm.Post(VmbusMessage(16, {}));  // Unload
  harness_.Do([&](LinkServer&) {
    device_->Wake();
    return 0;
  });
  LinkSignalWire nobody{};
  ASSERT_TRUE(vmm.Ask(LinkType::kSignal, WireBytes(nobody)));
  EXPECT_EQ(device_->runs(), runs);
  EXPECT_EQ(vmm.acknowledged(), acknowledged);
  EXPECT_FALSE(vmm.SlotIsFull());
  EXPECT_EQ(vmm.messages_sent(), messages_sent);
  EXPECT_EQ(rings.Read(8), "");

  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 17u);  // UnloadComplete
  EXPECT_TRUE(vmm.WaitForAck(acknowledged + 1));
}

TEST_P(LinkChannelsTest, ResumeLooksAfterChannelsWithoutASignal) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  GuestRings rings(vmm);
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  rings.Write("silent");
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  std::string echo;
  while (echo.empty()) {
    ASSERT_TRUE(vmm.WaitForEvent(0, kChannel));
    echo = rings.Read(6);
  }
  EXPECT_EQ(echo, "silent");
}

TEST_P(LinkChannelsTest, ResetClosesEverythingAndANewGuestStartsAfresh) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  LinkResetWire reset{};
  ASSERT_TRUE(vmm.Ask(LinkType::kReset, WireBytes(reset)));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
  EXPECT_EQ(harness_.status().bus->state, "disconnected");
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open"));
}

TEST_P(LinkChannelsTest, UnloadClosesTheDeviceBeforeItIsAnswered) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  vmm.Post(VmbusMessage(16, {}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 17u);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
}

TEST_P(LinkChannelsTest, ModifyMovesTheInterruptToAnotherProcessor) {
  Vmm vmm(harness_.path(), 2);
  OpenAll(vmm, 0x00050003);
  GuestRings rings(vmm);
  Exchange(vmm, rings, "on 0", 0);
  vmm.Post(VmbusMessage(22, {kChannel, 1}));
  const std::vector<std::byte> response = vmm.TakeMessage();
  EXPECT_EQ(WordAt(response, 0), 24u);
  EXPECT_EQ(WordAt(response, 12), 0u);
  vmm.page(2)[2 * 256] = std::byte{0};
  Exchange(vmm, rings, "on 1", 1);
  EXPECT_EQ(vmm.page(2)[2 * 256], std::byte{0});
  vmm.Post(VmbusMessage(22, {kChannel, 2}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 12), kFailure);
}

TEST_P(LinkChannelsTest, RemoveWhileTheOpenIsUnderWayFailsIt) {
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  std::vector<std::byte> open = VmbusMessage(5, {kChannel, 0, 1, 0, TestVmm::kRingPages / 2});
  open.resize(148);
  vmm.Post(open);
  // CONN_SET is not answered yet: the VMM looks at the socket in its waits only.
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].bus.state == "opening"; }));
  EXPECT_TRUE(IsOpen());
  Remove();
  EXPECT_EQ(device_.use_count(), 1);
  EXPECT_TRUE(device_->events().empty());
  std::vector<uint32_t> types;
  while (types.empty() || types.back() != 2) {
    const std::vector<std::byte> message = vmm.TakeMessage();
    ASSERT_FALSE(message.empty());
    types.push_back(WordAt(message, 0));
  }
  EXPECT_TRUE(vmm.WaitForDoorbell(vmm.channel_connection(), false));
}

TEST_P(LinkChannelsTest, DeviceAddedToALiveConnectionIsOfferedAtOnce) {
  Vmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  const auto second =
      std::make_shared<FakeDevice>(Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592"));
  ASSERT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(second); }).ok());
  const std::vector<std::byte> offer = vmm.TakeMessage();
  EXPECT_EQ(WordAt(offer, 0), 1u);
  EXPECT_EQ(WordAt(offer, 184), 2u);
}

TEST_P(LinkChannelsTest, StopWithAnOpenChannelClosesItAndTheSocket) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  harness_.Do([](LinkServer& server) {
    server.Stop();
    return 0;
  });
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_FALSE(ConnectTo(harness_.path()));
  EXPECT_FALSE(vmm.Ask(LinkType::kPause, {}).has_value());
}

}  // namespace
}  // namespace vmbfs::hyperv
