// The life of channels at the channel level: a VMM with a VMBus of its own on
// one side, fake devices on the other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hyperv/link/channel_level_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Guid kSecondInstance = Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592");

TEST_F(ChannelLevelTest, OfferSaysWhatTheDeviceIs) {
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.WaitForOffers(1));
  const std::vector<std::byte>& offer = vmm.offers()[0].payload;
  ASSERT_EQ(offer.size(), 168u);
  // shared/specs/vmbus.md section 0: the first three groups of a GUID are
  // little-endian. FakeDevice is c376c1c3-d276-48d2-90a9-c04748072c60.
  const unsigned char interface_id[16] = {0xc3, 0xc1, 0x76, 0xc3, 0x76, 0xd2, 0xd2, 0x48,
                                          0x90, 0xa9, 0xc0, 0x47, 0x48, 0x07, 0x2c, 0x60};
  EXPECT_EQ(std::memcmp(offer.data(), interface_id, 16), 0);
  EXPECT_EQ(offer[32], std::byte{0x10});  // named pipe
  EXPECT_EQ(WordAt(offer, 36), 0u);       // no MMIO
  EXPECT_EQ(WordAt(offer, 40), 0u);       // no monitor
}

TEST_F(ChannelLevelTest, WholeLifeFromOfferToRelease) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));  // looked after without a signal
  EXPECT_EQ(State(), "open");
  EXPECT_EQ(Channel().bus.channel_id, 1u);
  EXPECT_EQ(Channel().bus.gpadl_count, 1u);
  EXPECT_TRUE(Channel().open);
  GuestRings rings(vmm);
  for (int i = 0; i < 100; ++i) Exchange(vmm, rings, "request " + std::to_string(i));
  EXPECT_GE(Channel().doorbells, 1u);
  EXPECT_GE(Channel().signals, 1u);

  EXPECT_TRUE(Done(vmm.Close(kChannel)));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_EQ(State(), "closed");
  ASSERT_TRUE(vmm.Open(kChannel));
  Remove(device_);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open", "Close"));
  ASSERT_TRUE(vmm.WaitForRevokes(1));
  EXPECT_THAT(vmm.revoked(), ElementsAre(kChannel));
  EXPECT_TRUE(Done(vmm.Close(kChannel)));  // the guest's, which crossed
  EXPECT_TRUE(Done(vmm.DeleteGpadl(kChannel, TestChannelVmm::kRingGpadl)));
  EXPECT_TRUE(Done(vmm.Release(kChannel)));
  EXPECT_THAT(Refusal(vmm.Close(kChannel)).second, HasSubstr("there is no channel 101"));
}

TEST_F(ChannelLevelTest, GuestIsSignalledOnceMoreAfterOpen) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);  // the device has nothing to say
  EXPECT_TRUE(vmm.WaitForInterrupt());
}

TEST_F(ChannelLevelTest, GuestThatWantsNoInterruptsGetsNone) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm, 0xFFFFFFFF);
  GuestRings rings(vmm);
  rings.Write("quiet");
  vmm.Kick();
  std::string echo;
  while (echo.empty()) echo = rings.Read(5);
  EXPECT_EQ(echo, "quiet");
  EXPECT_EQ(Channel().signals, 0u);
  EXPECT_EQ(vmm.Interrupts(), 0u);
  EXPECT_THAT(Refusal(vmm.Modify(kChannel, 1)).second, HasSubstr("not to be interrupted"));
}

TEST_F(ChannelLevelTest, ModifyMovesInterruptsToTheNewDescriptor) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Exchange(vmm, rings, "on 0");
  ASSERT_TRUE(Done(vmm.Modify(kChannel, 1)));
  EXPECT_EQ(Channel().bus.target_vp, 1u);
  (void)vmm.OldInterrupts();  // from before
  for (int i = 0; i < 20; ++i) Exchange(vmm, rings, "on 1");
  EXPECT_EQ(vmm.OldInterrupts(), 0u);
}

TEST_F(ChannelLevelTest, OpenWaitsForStartAndForResume) {
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp(/*start=*/false));
  ASSERT_TRUE(vmm.WaitForOffers(1));
  ASSERT_TRUE(vmm.AddRing(kChannel));
  uint64_t open = vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].bus.state == "opening"; }));
  EXPECT_TRUE(device_->events().empty());
  ASSERT_TRUE(vmm.Start());
  EXPECT_EQ(TestChannelVmm::Status(vmm.WaitForReply(open)), 0u);
  ASSERT_TRUE(Done(vmm.Close(kChannel)));
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  open = vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].bus.state == "opening"; }));
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  EXPECT_EQ(TestChannelVmm::Status(vmm.WaitForReply(open)), 0u);
}

TEST_F(ChannelLevelTest, CloseOfAnOpenUnderWayIsAnsweredAfterItsFailure) {
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp(/*start=*/false));
  ASSERT_TRUE(vmm.WaitForOffers(1));
  ASSERT_TRUE(vmm.AddRing(kChannel));
  const uint64_t open = vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  ASSERT_TRUE(Done(vmm.Close(kChannel)));
  EXPECT_EQ(TestChannelVmm::Status(vmm.WaitForReply(open)), kLinkStatusFailure);
  EXPECT_TRUE(Done(vmm.Close(kChannel)));  // nothing to close: answered
  ASSERT_TRUE(vmm.Start());
  EXPECT_TRUE(device_->events().empty());
  EXPECT_TRUE(vmm.Open(kChannel));
}

TEST_F(ChannelLevelTest, RingGpadlIsDeletedWhenTheChannelCloses) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  LinkGpadlDelWire del{};
  del.channel = kChannel;
  del.gpadl = TestChannelVmm::kRingGpadl;
  const uint64_t seq = vmm.Send(LinkType::kGpadlDel, WireBytes(del));
  // A second one has nothing to delete, and is answered before the first.
  EXPECT_EQ(Refusal(vmm.DeleteGpadl(kChannel, TestChannelVmm::kRingGpadl)).first, 3u);
  EXPECT_EQ(device_->events().size(), 1u);
  ASSERT_TRUE(Done(vmm.Close(kChannel)));
  EXPECT_TRUE(Done(vmm.WaitForReply(seq)));
  EXPECT_FALSE(vmm.Open(kChannel));  // no such GPADL
  EXPECT_TRUE(vmm.AddRing(kChannel));
  EXPECT_TRUE(vmm.Open(kChannel));
}

TEST_F(ChannelLevelTest, FaultEndsServiceUntilTheGuestReopens) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  device_->FailRun(absl::InvalidArgumentError("packet refused"));
  vmm.Kick();
  EXPECT_TRUE(device_->WaitForEvents(2));
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].faults == 1; }));
  EXPECT_EQ(State(), "open");  // for the guest
  EXPECT_FALSE(Channel().open);
  EXPECT_TRUE(Done(vmm.Modify(kChannel, 1)));
  device_->FailRun(absl::OkStatus());
  ASSERT_TRUE(Done(vmm.Close(kChannel)));
  ASSERT_TRUE(vmm.Open(kChannel));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open"));
}

TEST_F(ChannelLevelTest, MemoryThatGoesFaultsItsChannelBeforeTheAnswer) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  LinkMemDelWire rings{};
  rings.id = TestVmmBase::kRingRegion;
  ASSERT_TRUE(Done(vmm.Ask(LinkType::kMemDel, WireBytes(rings))));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_THAT(Channel().fault, HasSubstr("memory region 2"));
  EXPECT_TRUE(Done(vmm.Close(kChannel)));
  EXPECT_FALSE(vmm.Open(kChannel));  // its page frames are nowhere
}

TEST_F(ChannelLevelTest, PauseHoldsTurnsAndInterruptsUntilResume) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  GuestRings rings(vmm);
  Exchange(vmm, rings, "before");
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  const int runs = device_->runs();
  const uint64_t doorbells = Channel().doorbells;
  (void)vmm.Interrupts();
  rings.Write("patience");
  vmm.Kick();
  EXPECT_TRUE(harness_.WaitForStatus(
      [&](const LinkStatus& status) { return status.channels[0].doorbells > doorbells; }));
  harness_.Do([&](LinkServer&) {
    device_->Wake();
    return 0;
  });
  // Longer than the signal after open takes.
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  EXPECT_EQ(device_->runs(), runs);
  EXPECT_EQ(rings.Read(8), "");
  EXPECT_EQ(vmm.Interrupts(), 0u);
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  std::string echo;
  while (echo.empty()) {
    ASSERT_TRUE(vmm.WaitForInterrupt());
    echo = rings.Read(8);
  }
  EXPECT_EQ(echo, "patience");
}

TEST_F(ChannelLevelTest, ResetEndsEverythingOfTheGuestsAndOffersStay) {
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp(/*start=*/false));
  ASSERT_TRUE(vmm.WaitForOffers(1));
  EXPECT_TRUE(Done(vmm.Reset()));  // closed
  ASSERT_TRUE(vmm.AddRing(kChannel));
  const uint64_t open = vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  EXPECT_TRUE(Done(vmm.Reset()));  // opening
  EXPECT_EQ(TestChannelVmm::Status(vmm.WaitForReply(open)), kLinkStatusFailure);
  EXPECT_EQ(Channel().bus.gpadl_count, 0u);
  ASSERT_TRUE(vmm.Start());
  ASSERT_TRUE(vmm.AddRing(kChannel));
  ASSERT_TRUE(vmm.Open(kChannel));
  EXPECT_TRUE(Done(vmm.Reset()));  // open
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_EQ(State(), "closed");
  ASSERT_TRUE(vmm.AddRing(kChannel));
  ASSERT_TRUE(vmm.Open(kChannel));
  Remove(device_);
  ASSERT_TRUE(vmm.WaitForRevokes(1));
  EXPECT_TRUE(Done(vmm.Reset()));  // revoked
  EXPECT_TRUE(Done(vmm.Release(kChannel)));
}

TEST_F(ChannelLevelTest, ReleaseOfAChannelThatIsNotRevokedClosesItAndKeepsTheOffer) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(Done(vmm.Release(kChannel)));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  EXPECT_EQ(Channel().bus.gpadl_count, 0u);
  ASSERT_TRUE(vmm.AddRing(kChannel));
  EXPECT_TRUE(vmm.Open(kChannel));
}

TEST_F(ChannelLevelTest, RevokeWhileOpeningAnswersTheOpenFirst) {
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp(/*start=*/false));
  ASSERT_TRUE(vmm.WaitForOffers(1));
  ASSERT_TRUE(vmm.AddRing(kChannel));
  const uint64_t open = vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].bus.state == "opening"; }));
  Remove(device_);
  EXPECT_EQ(device_.use_count(), 1);
  EXPECT_EQ(TestChannelVmm::Status(vmm.WaitForReply(open)), kLinkStatusFailure);
  EXPECT_TRUE(vmm.WaitForRevokes(1));
  EXPECT_FALSE(vmm.Open(kChannel));  // the guest could not know
}

TEST_F(ChannelLevelTest, DeviceRemovedBeforeItsOfferWasAnsweredIsRevokedThen) {
  TestChannelVmm vmm(harness_.path());
  vmm.HoldAnswers();
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.WaitForOffers(1));
  Remove(device_);
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));  // nothing was sent before this
  EXPECT_TRUE(vmm.revoked().empty());
  vmm.AnswerOffer(0, 5);
  ASSERT_TRUE(vmm.WaitForRevokes(1));
  EXPECT_THAT(vmm.revoked(), ElementsAre(5));
  // RELEASE before the answer to REVOKE does not free the name.
  EXPECT_TRUE(Done(vmm.Release(5)));
  EXPECT_TRUE(Done(vmm.Close(5)));
  vmm.AnswerRevoke();
  EXPECT_TRUE(Done(vmm.Release(5)));
  EXPECT_EQ(Refusal(vmm.Close(5)).first, 3u);
}

TEST_F(ChannelLevelTest, DeviceThatComesBackIsOfferedAgainAtOnce) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  Remove(device_);
  Add(device_);
  ASSERT_TRUE(vmm.WaitForOffers(2));
  EXPECT_EQ(vmm.offers()[0].payload, vmm.offers()[1].payload);
  EXPECT_TRUE(Done(vmm.Release(kChannel)));
  ASSERT_TRUE(vmm.AddRing(102));
  EXPECT_TRUE(vmm.Open(102));
}

TEST_F(ChannelLevelTest, TwoDevicesDoNotDisturbEachOther) {
  const auto second = std::make_shared<FakeDevice>(kSecondInstance);
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  Add(second);  // hot
  ASSERT_TRUE(vmm.WaitForOffers(2));
  EXPECT_EQ(vmm.offers()[1].payload[16], kSecondInstance.bytes[0]);
  ASSERT_TRUE(vmm.AddRing(102));  // each channel has its own GPADL ids
  ASSERT_TRUE(vmm.Open(102));
  Remove(device_);
  ASSERT_TRUE(vmm.WaitForRevokes(1));
  EXPECT_THAT(second->events(), ElementsAre("Open"));
  GuestRings rings(vmm);
  Exchange(vmm, rings, "still here");
}

TEST_F(ChannelLevelTest, LossOfTheConnectionInAnyStateClosesTheDeviceAndOffersItAnew) {
  {
    TestChannelVmm vmm(harness_.path());
    vmm.HoldAnswers();
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.WaitForOffers(1));  // offering
  }
  const auto gone = [](const LinkStatus& status) { return !status.connected; };
  ASSERT_TRUE(harness_.WaitForStatus(gone));
  {
    TestChannelVmm vmm(harness_.path());
    ASSERT_TRUE(vmm.SetUp(/*start=*/false));
    ASSERT_TRUE(vmm.WaitForOffers(1));
    ASSERT_TRUE(vmm.AddRing(kChannel));
    vmm.SendOpen(TestChannelVmm::OpenPayload(kChannel));
    EXPECT_TRUE(harness_.WaitForStatus(
        [](const LinkStatus& status) { return status.channels[0].bus.state == "opening"; }));
  }
  ASSERT_TRUE(harness_.WaitForStatus(gone));
  EXPECT_TRUE(device_->events().empty());
  {
    TestChannelVmm vmm(harness_.path());
    OpenAll(vmm);
  }
  ASSERT_TRUE(harness_.WaitForStatus(gone));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  {
    TestChannelVmm vmm(harness_.path());
    OpenAll(vmm);
    vmm.HoldAnswers();
    Remove(device_);
    ASSERT_TRUE(vmm.WaitForRevokes(1));  // revoking
  }
  ASSERT_TRUE(harness_.WaitForStatus(gone));
  Add(device_);
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
}

}  // namespace
}  // namespace vmbfs::hyperv
