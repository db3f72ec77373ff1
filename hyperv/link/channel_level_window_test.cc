// The window of OFFER and REVOKE: many devices, and a VMM that is slow to answer.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "hyperv/link/channel_level_fixture.h"

namespace vmbfs::hyperv {
namespace {

class ChannelLevelWindowTest : public ChannelLevelTest {
 protected:
  static constexpr size_t kWindow = 32;

  // Beside the fixture's own, which is number 0.
  void AddDevices(uint32_t count) {
    for (uint32_t i = 1; i <= count; ++i) {
      Guid instance = FakeDevice::kInstance;
      std::memcpy(instance.bytes.data(), &i, sizeof(i));
      devices_.push_back(std::make_shared<FakeDevice>(instance));
      Add(devices_.back());
    }
  }
  // What was sent before this has come.
  static bool Settled(TestChannelVmm& vmm) { return Done(vmm.Ask(LinkType::kResume, {})); }
  // Which device an OFFER is of.
  static uint32_t DeviceOf(const TestFrame& offer) { return WordAt(offer.payload, 16); }

  std::vector<std::shared_ptr<FakeDevice>> devices_;
};

// TestChannelVmm answers each request in a blocking way before it reads on.
TEST_F(ChannelLevelWindowTest, ThousandsOfDevicesComeAndGoWithAVmmThatBlocks) {
  constexpr uint32_t kDevices = 2000;
  AddDevices(kDevices);
  TestChannelVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.WaitForOffers(1 + kDevices));
  for (uint32_t i = 1; i <= kDevices; ++i) ASSERT_EQ(DeviceOf(vmm.offers()[i]), i);
  harness_.Do([&](LinkServer& server) {
    for (const auto& device : devices_) server.Remove(*device);
    return 0;
  });
  ASSERT_TRUE(vmm.WaitForRevokes(kDevices));
  for (uint32_t i = 0; i < kDevices; ++i) ASSERT_EQ(vmm.revoked()[i], kChannel + 1 + i);
  ASSERT_TRUE(vmm.AddRing(kChannel));
  EXPECT_TRUE(vmm.Open(kChannel));
}

TEST_F(ChannelLevelWindowTest, OffersWaitForAnswersAndARefusalIsOne) {
  AddDevices(kWindow + 2);
  TestChannelVmm vmm(harness_.path());
  vmm.HoldAnswers();
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(Settled(vmm));
  EXPECT_EQ(vmm.offers().size(), kWindow);
  vmm.AnswerOffer(0, kChannel);
  ASSERT_TRUE(Settled(vmm));
  EXPECT_EQ(vmm.offers().size(), kWindow + 1);
  vmm.RefuseOffer(1);
  ASSERT_TRUE(Settled(vmm));
  EXPECT_EQ(vmm.offers().size(), kWindow + 2);
}

TEST_F(ChannelLevelWindowTest, DeviceThatGoesWhileItsOfferWaitsIsNeverOffered) {
  AddDevices(kWindow + 1);
  TestChannelVmm vmm(harness_.path());
  vmm.HoldAnswers();
  ASSERT_TRUE(vmm.SetUp());
  Remove(devices_[kWindow - 1]);  // the first that waits
  vmm.AnswerOffer(0, kChannel);
  ASSERT_TRUE(Settled(vmm));
  ASSERT_EQ(vmm.offers().size(), kWindow + 1);
  EXPECT_EQ(DeviceOf(vmm.offers().back()), kWindow + 1);
  EXPECT_TRUE(vmm.revoked().empty());
}

TEST_F(ChannelLevelWindowTest, RevokesWaitBehindOffersThatWereMadeBefore) {
  TestChannelVmm vmm(harness_.path());
  OpenAll(vmm);
  vmm.HoldAnswers();
  AddDevices(kWindow + 1);
  Remove(device_);
  EXPECT_EQ(device_.use_count(), 1);  // let go of at once, whatever the VMM does
  EXPECT_EQ(device_->events().back(), "Close");
  ASSERT_TRUE(Settled(vmm));
  EXPECT_TRUE(vmm.revoked().empty());
  EXPECT_TRUE(Done(vmm.Release(kChannel)));  // too early: the name is still taken
  EXPECT_TRUE(Done(vmm.Close(kChannel)));
  vmm.AnswerOffer(1, kChannel + 1);
  ASSERT_TRUE(Settled(vmm));
  EXPECT_EQ(vmm.offers().size(), 1 + kWindow + 1);
  EXPECT_TRUE(vmm.revoked().empty());
  vmm.AnswerOffer(2, kChannel + 2);
  ASSERT_TRUE(vmm.WaitForRevokes(1));
  vmm.AnswerRevoke();
  EXPECT_TRUE(Done(vmm.Release(kChannel)));
  EXPECT_EQ(Refusal(vmm.Close(kChannel)).first, 3u);  // gone
}

}  // namespace
}  // namespace vmbfs::hyperv
