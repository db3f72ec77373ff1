// Monitored channels: their ids, and the page that the guest signals them by
// (shared/specs/vmbus.md 1.7, 2.6, 3.8).

#include <optional>

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kParentToChild = 0x13f8c0000;
constexpr uint64_t kChildToParent = 0x13f8d0000;

class BusMonitorTest : public BusTest {
 protected:
  OfferId OfferMonitored(const Guid& instance, uint16_t subchannel = 0) {
    ChannelOffer offer = PipeOffer(instance);
    offer.subchannel_index = subchannel;
    offer.monitored = true;
    return bus_.Offer(offer).value();
  }
  void ContactWithPages(uint64_t parent_to_child = kParentToChild,
                        uint64_t child_to_parent = kChildToParent) {
    Post(MessageBytes(14, 56)
             .U32(8, 0x00060000)
             .U32(20, 4)  // modify connection
             .U64(24, parent_to_child)
             .U64(32, child_to_parent));
  }
  void ModifyConnection(uint64_t parent_to_child, uint64_t child_to_parent) {
    Post(MessageBytes(25, 24).U64(8, parent_to_child).U64(16, child_to_parent));
  }
  // Bytes 188 and 189 of each offer since the last call: monitor id, allocated.
  std::vector<std::pair<uint64_t, uint64_t>> OfferedMonitors() {
    std::vector<std::pair<uint64_t, uint64_t>> monitors;
    for (; seen_ < port_.sent().size(); ++seen_) {
      const std::vector<std::byte>& message = port_.sent()[seen_].bytes;
      if (NumberAt(message, 0, 4) != 1) continue;
      monitors.emplace_back(NumberAt(message, 188, 1), NumberAt(message, 189, 1));
    }
    return monitors;
  }
  void OpenIt(OfferId offer, uint32_t channel_id = 1) {
    CreateGpadl(channel_id, 5);
    Open(channel_id);
    bus_.OpenDone(offer, absl::OkStatus());
  }

  static constexpr std::pair<uint64_t, uint64_t> kNone{0xFF, 0};

 private:
  size_t seen_ = 0;
};

TEST_F(BusMonitorTest, MonitoredChannelsAreOfferedWithAnIdEach) {
  Offer(kBoot);
  imc_ = OfferMonitored(kImc);
  OfferMonitored(kImc, 1);
  ContactWithPages();
  RequestOffers();
  // In the order of the offers: IMC, its sub-channel, boot.
  EXPECT_THAT(OfferedMonitors(), ElementsAre(std::pair(0, 1), std::pair(1, 1), kNone));
  EXPECT_EQ(bus_.channels()[0].monitor_id, 0);
  EXPECT_EQ(bus_.channels()[1].monitor_id, 1);
  EXPECT_EQ(bus_.channels()[2].monitor_id, std::nullopt);
}

TEST_F(BusMonitorTest, OpenSaysWhereTheGuestSignals) {
  OfferMonitored(kImc);
  const OfferId second = OfferMonitored(kImc, 1);
  const OfferId boot = Offer(kBoot);
  ContactWithPages();
  RequestOffers();
  OpenIt(second, 2);
  OpenIt(boot, 3);
  ASSERT_THAT(port_.opens(), SizeIs(2));
  ASSERT_TRUE(port_.opens()[0].monitor.has_value());
  EXPECT_EQ(port_.opens()[0].monitor->guest_page_gpa, kChildToParent);
  EXPECT_EQ(port_.opens()[0].monitor->id, 1);
  EXPECT_FALSE(port_.opens()[1].monitor.has_value());
}

TEST_F(BusMonitorTest, GuestWithoutAPageToSignalByGetsUnmonitoredChannels) {
  imc_ = OfferMonitored(kImc);
  Contact(0x00050003);
  RequestOffers();
  OpenIt(imc_);
  EXPECT_THAT(OfferedMonitors(), ElementsAre(kNone));
  EXPECT_FALSE(port_.opens().back().monitor.has_value());

  ContactWithPages(kParentToChild, kChildToParent + 8);  // within a page
  bus_.CloseDone(imc_);
  RequestOffers();
  OpenIt(imc_);
  EXPECT_THAT(OfferedMonitors(), ElementsAre(kNone));
  EXPECT_FALSE(port_.opens().back().monitor.has_value());
}

TEST_F(BusMonitorTest, IdsComeBackWithTheirChannelsAndNotBefore) {
  imc_ = OfferMonitored(kImc);
  ContactWithPages();
  RequestOffers();
  EXPECT_THAT(OfferedMonitors(), ElementsAre(std::pair(0, 1)));
  bus_.Revoke(imc_);
  OfferMonitored(kBoot);
  EXPECT_THAT(OfferedMonitors(), ElementsAre(std::pair(1, 1)));  // the guest still holds the first
  ReleaseId(1);
  OfferMonitored(kImc);
  EXPECT_THAT(OfferedMonitors(), ElementsAre(std::pair(0, 1)));
  ContactWithPages();
  RequestOffers();
  EXPECT_THAT(OfferedMonitors(), ElementsAre(std::pair(0, 1), std::pair(1, 1)));
}

TEST_F(BusMonitorTest, ChannelsBeyond128AreOfferedUnmonitored) {
  for (uint16_t i = 0; i < 130; ++i) OfferMonitored(kImc, i);
  ContactWithPages();
  RequestOffers();
  const auto monitors = OfferedMonitors();
  ASSERT_THAT(monitors, SizeIs(130));
  for (uint64_t i = 0; i < 128; ++i) EXPECT_EQ(monitors[i], std::pair(i, uint64_t{1}));
  EXPECT_EQ(monitors[128], kNone);
  EXPECT_EQ(monitors[129], kNone);
}

TEST_F(BusMonitorTest, PagesDoNotChangeWhileADeviceMayBeSignalledByThem) {
  imc_ = OfferMonitored(kImc);
  ContactWithPages();
  RequestOffers();
  ModifyConnection(0x3000, 0x4000);
  CreateGpadl(1, 5);
  log();
  Open(1);
  EXPECT_EQ(port_.opens().back().monitor->guest_page_gpa, 0x4000u);
  const auto expect_refusal = [&] {
    log();
    ModifyConnection(0x5000, 0x6000);
    ModifyConnection(0, 0);
    EXPECT_THAT(log(), ElementsAre("modify connection response 2", "modify connection response 2"));
    EXPECT_EQ(bus_.status().child_to_parent_monitor_page_gpa, 0x4000u);
  };
  expect_refusal();
  bus_.OpenDone(imc_, absl::OkStatus());
  expect_refusal();
  Close(1);
  expect_refusal();
  bus_.CloseDone(imc_);
  log();
  ModifyConnection(0, 0);
  EXPECT_THAT(log(), ElementsAre("modify connection response 0"));
  Open(1);  // offered as monitored, and nothing to look at any more
  EXPECT_FALSE(port_.opens().back().monitor.has_value());
}

TEST_F(BusMonitorTest, OpenChannelThatIsNotMonitoredLetsThePagesChange) {
  imc_ = Offer(kImc);
  ContactWithPages();
  RequestOffers();
  OpenIt(imc_);
  log();
  ModifyConnection(0x3000, 0x4000);
  EXPECT_THAT(log(), ElementsAre("modify connection response 0"));
}

}  // namespace
}  // namespace vmbfs::hyperv
