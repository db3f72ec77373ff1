// Monitored channels: a guest that signals through its monitor page, guests that
// name pages which are none, and when the page is looked into at all.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/fake_device.h"
#include "hyperv/link/guest_rings.h"
#include "hyperv/link/link_channels_fixture.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_channel_vmm.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kChannel = 1;
constexpr uint64_t kParentToChildPage = 40;
constexpr uint64_t kMonitorPage = 41;
constexpr uint64_t kExtraGpa = 0x200000;  // one page, of a region of its own
constexpr uint32_t kExtraRegion = 3;

LinkOptions Monitored() {
  LinkOptions options;
  options.monitored = true;
  options.allow_unsealed_memory = true;
  return options;
}

// The parameter is the delivery mode.
class MonitoredChannelsTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  MonitoredChannelsTest() {
    InstallVanishedMemoryHandler();
    EXPECT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(device_); }).ok());
  }

  class Vmm : public TestVmm {
   public:
    explicit Vmm(const std::string& path) : TestVmm(path, 1, GetParam()) {
      NameMonitorPages(kParentToChildPage << 12, kMonitorPage << 12);
    }
  };

  void Connect(TestVmm& vmm) {
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.ConnectBus());
    ASSERT_TRUE(vmm.CreateRingGpadl());
  }
  void OpenAll(TestVmm& vmm) {
    Connect(vmm);
    ASSERT_EQ(vmm.OpenChannel(), 0u);
  }
  // A page behind the guest's RAM.
  void AddExtra(TestVmm& vmm, const UniqueFd& fd) {
    LinkMemAddWire add{};
    add.id = kExtraRegion;
    add.gpa = kExtraGpa;
    add.bytes = 4096;
    ASSERT_FALSE(vmm.Ask(LinkType::kMemAdd, WireBytes(add), {fd.get()})->error());
  }
  static std::atomic_ref<uint32_t> Word(std::byte* at) {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at));
  }
  void ExpectEcho(TestVmm& vmm, GuestRings& rings, const std::string& text) {
    std::string echo;
    while (echo.empty()) {
      ASSERT_TRUE(vmm.WaitForEvent(0, kChannel));
      echo = rings.Read(text.size());  // the first signal may be the one after open
    }
    EXPECT_EQ(echo, text);
  }
  void ExpectDoorbellServes(TestVmm& vmm) {
    GuestRings rings(vmm);
    rings.Write("by doorbell");
    vmm.RingDoorbell(vmm.channel_connection());
    ExpectEcho(vmm, rings, "by doorbell");
  }
  uint64_t Polls() { return harness_.status().monitor_polls; }
  void ExpectPolling() {
    const uint64_t before = Polls();
    EXPECT_TRUE(harness_.WaitForStatus(
        [&](const LinkStatus& status) { return status.monitor_polls >= before + 5; }));
  }
  // No timer is left: of one that ran, the last may have been under way.
  void ExpectNoPolling() {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const uint64_t before = Polls();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(Polls(), before);
  }

  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  LinkHarness harness_{Monitored()};
};

INSTANTIATE_TEST_SUITE_P(Deliveries, MonitoredChannelsTest,
                         ::testing::Values(kLinkDeliveryDirect, kLinkDeliveryMediated),
                         DeliveryName);

TEST_P(MonitoredChannelsTest, BitInTheMonitorPageSignalsTheChannelAndIsTaken) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_EQ(vmm.channel_monitor(), 0x100u);  // the first of group 0
  GuestRings rings(vmm);
  std::byte* const page = vmm.page(kMonitorPage);
  // All but the one bit belongs to nobody.
  Word(page).store(0xF);
  Word(page + 8).store(0xFFFFFFFE);
  Word(page + 12).store(0xFFFFFFFF);
  Word(page + 16).store(1);
  for (int i = 0; i < 20; ++i) {
    rings.Write("request " + std::to_string(i));
    Word(page + 8).fetch_or(1);
    ExpectEcho(vmm, rings, "request " + std::to_string(i));
  }
  EXPECT_TRUE(harness_.WaitForStatus([&](const LinkStatus& status) {
    return status.monitor_signals == 20 && Word(page + 8).load() == 0xFFFFFFFE;
  }));
  EXPECT_EQ(Word(page).load(), 0xFu);
  EXPECT_EQ(Word(page + 12).load(), 0xFFFFFFFFu);
  EXPECT_EQ(Word(page + 16).load(), 1u);
  EXPECT_EQ(harness_.status().channels.at(0).doorbells, 20u);
  ExpectDoorbellServes(vmm);
}

TEST_P(MonitoredChannelsTest, PageIsPolledOnlyWhileAChannelIsServedAndTheLinkRuns) {
  Vmm vmm(harness_.path());
  Connect(vmm);
  ExpectNoPolling();
  EXPECT_EQ(Polls(), 0u);
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  ExpectPolling();

  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}).has_value());
  ExpectNoPolling();
  Word(vmm.page(kMonitorPage) + 8).fetch_or(1);  // nothing is written while paused
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(Word(vmm.page(kMonitorPage) + 8).load(), 1u);
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}).has_value());
  ExpectPolling();
  EXPECT_EQ(Word(vmm.page(kMonitorPage) + 8).load(), 0u);

  vmm.Post(VmbusMessage(7, {kChannel}));
  ASSERT_TRUE(device_->WaitForEvents(2));
  ExpectNoPolling();
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  ExpectPolling();
  ASSERT_TRUE(vmm.Ask(LinkType::kReset, std::vector<std::byte>(8)).has_value());
  ExpectNoPolling();
}

TEST_P(MonitoredChannelsTest, ChannelThatEndsWithoutTheGuestsCloseIsPolledNoMore) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  ExpectPolling();
  device_->FailRun(absl::InternalError("broken"));
  Word(vmm.page(kMonitorPage) + 8).fetch_or(1);
  ASSERT_TRUE(device_->WaitForEvents(2));
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  ExpectNoPolling();
}

TEST_P(MonitoredChannelsTest, OpenThatTheDeviceRefusesStartsNoPolling) {
  Vmm vmm(harness_.path());
  Connect(vmm);
  device_->FailOpen(absl::InternalError("no"));
  EXPECT_EQ(vmm.OpenChannel(), 0x8000FFFFu);
  ExpectNoPolling();
  EXPECT_EQ(Polls(), 0u);
  device_->FailOpen(absl::OkStatus());
  EXPECT_EQ(vmm.OpenChannel(), 0u);
  ExpectPolling();
}

TEST_P(MonitoredChannelsTest, GuestWithoutMonitorPagesIsServedByDoorbellsAlone) {
  Vmm vmm(harness_.path());
  vmm.NameMonitorPages(0, 0);
  OpenAll(vmm);
  EXPECT_EQ(vmm.channel_monitor(), 0xFFu);
  ExpectDoorbellServes(vmm);
  EXPECT_EQ(Polls(), 0u);
}

TEST_P(MonitoredChannelsTest, PageOutsideMemoryIsPolledFromWhenItIsMemory) {
  Vmm vmm(harness_.path());
  vmm.NameMonitorPages(kParentToChildPage << 12, kExtraGpa);
  OpenAll(vmm);
  EXPECT_THAT(harness_.status().last_error, HasSubstr("monitor page: guest address 0x200000"));
  ExpectDoorbellServes(vmm);
  EXPECT_EQ(Polls(), 0u);
  const UniqueFd extra = TestMemory(4096, SealShrink());
  AddExtra(vmm, extra);
  const uint32_t bit = 1;
  ASSERT_EQ(::pwrite(extra.get(), &bit, sizeof(bit), 8), 4);
  EXPECT_TRUE(
      harness_.WaitForStatus([](const LinkStatus& status) { return status.monitor_signals == 1; }));
}

TEST_P(MonitoredChannelsTest, AddressesAtTheEndOfTheWorldAreHarmless) {
  for (const uint64_t gpa : {uint64_t{0xFFFFFFFFFFFFF000}, uint64_t{1} << 52, uint64_t{1} << 63}) {
    Vmm vmm(harness_.path());
    vmm.NameMonitorPages(0x1000, gpa);
    OpenAll(vmm);
    ExpectDoorbellServes(vmm);
  }
  EXPECT_EQ(Polls(), 0u);
}

// Only the guest's own messages can suffer; here not even they do.
TEST_P(MonitoredChannelsTest, PagesOfTheSynicAndOfTheRingsMayBeNamedAsWell) {
  for (const uint64_t gpa : {uint64_t{0x1000}, uint64_t{0x2000}, TestVmm::kRingGpa}) {
    Vmm vmm(harness_.path());
    vmm.NameMonitorPages(0x1000, gpa);
    OpenAll(vmm);
    ExpectDoorbellServes(vmm);
    ExpectPolling();
  }
}

TEST_P(MonitoredChannelsTest, MonitorPageThatIsTakenAwayEndsPollingAndNothingElse) {
  Vmm vmm(harness_.path());
  vmm.NameMonitorPages(kParentToChildPage << 12, kExtraGpa);
  ASSERT_TRUE(vmm.SetUp());
  const UniqueFd extra = TestMemory(4096, SealShrink());
  AddExtra(vmm, extra);
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  ExpectPolling();
  LinkMemDelWire del{};
  del.id = kExtraRegion;
  ASSERT_FALSE(vmm.Ask(LinkType::kMemDel, WireBytes(del))->error());
  ExpectNoPolling();
  ExpectDoorbellServes(vmm);
  AddExtra(vmm, extra);
  ExpectPolling();
}

TEST_P(MonitoredChannelsTest, MonitorPageThatVanishesFaultsTheChannelsThatSignalThroughIt) {
  Vmm vmm(harness_.path());
  vmm.NameMonitorPages(kParentToChildPage << 12, kExtraGpa);
  ASSERT_TRUE(vmm.SetUp());
  const UniqueFd extra = TestMemory(4096, 0);
  AddExtra(vmm, extra);
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  ExpectPolling();
  ASSERT_EQ(::ftruncate(extra.get(), 0), 0);
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) {
    return status.last_error.find("monitor page: guest memory vanished") != std::string::npos;
  }));
  ExpectNoPolling();
  EXPECT_EQ(harness_.status().channels.at(0).faults, 1u);
  EXPECT_THAT(harness_.status().channels.at(0).fault,
              HasSubstr("monitor page: guest memory vanished"));
  EXPECT_EQ(harness_.status().monitor_signals, 0u);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
}

TEST(MonitoredOfferTest, ChannelLevelTellsTheVmmThatAMonitorIsWanted) {
  LinkHarness harness(Monitored());
  const auto device = std::make_shared<FakeDevice>();
  ASSERT_TRUE(harness.Do([&](LinkServer& server) { return server.Add(device); }).ok());
  TestChannelVmm vmm(harness.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.WaitForOffers(1));
  EXPECT_EQ(WordAt(vmm.offers()[0].payload, 40), 1u);
}

}  // namespace
}  // namespace vmbfs::hyperv
