// A whole guest that signals through its monitor page against a whole link server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/link_test_fixture.h"
#include "hyperv/link/link_server.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

class GuestMonitorTest : public LinkServerFixture, public testing::WithParamInterface<GuestLink> {
 protected:
  GuestMonitorTest() : LinkServerFixture(/*monitored=*/true) {}
  GuestOptions Options(GuestSignal signal, GuestProfile profile = GuestProfile::kLinux) const {
    GuestOptions options = OptionsOf(GetParam(), profile);
    options.signal = signal;
    return options;
  }
  LinkStatus Status() {
    LinkStatus status;
    OnStrand([&] { status = server_->status(); });
    return status;
  }
};
INSTANTIATE_TEST_SUITE_P(Deliveries, GuestMonitorTest,
                         testing::Values(GuestLink::kDirect, GuestLink::kMediated),
                         [](const auto& test) { return std::string(GuestLinkName(test.param)); });

TEST_P(GuestMonitorTest, MessagesComeBackWithoutASingleEvent) {
  const std::unique_ptr<Guest> guest = Connected(Options(GuestSignal::kMonitor));
  EXPECT_EQ(guest->offers().front().monitor_id, 0);
  for (int open = 0; open < 2; ++open) {
    std::unique_ptr<GuestChannel> channel = Opened(*guest);
    for (size_t seed = 0; seed < 50; ++seed) ExpectEcho(*channel, 100 * seed, seed);
    EXPECT_TRUE(guest->Close(std::move(channel)).ok());
  }
  const LinkStatus status = Status();
  EXPECT_GE(status.monitor_signals, 1u);
  EXPECT_EQ(status.channels.front().doorbells, status.monitor_signals);
}

TEST_P(GuestMonitorTest, MonitoredChannelServesEventsAsWell) {
  const std::unique_ptr<Guest> guest = Connected(Options(GuestSignal::kEvent));
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  for (size_t seed = 0; seed < 50; ++seed) ExpectEcho(*channel, 100, seed);
  EXPECT_EQ(Status().monitor_signals, 0u);
}

// It names no monitor page.
TEST_P(GuestMonitorTest, FirmwareIsOfferedNoMonitor) {
  const GuestProfile firmware = GuestProfile::kFirmware;
  const std::unique_ptr<Guest> guest = Connected(Options(GuestSignal::kMonitor, firmware));
  ASSERT_EQ(guest->offers().size(), 1u);
  EXPECT_EQ(guest->offers().front().monitor_id, std::nullopt);
  EXPECT_THAT(guest->Open(guest->offers().front()).status().message(), HasSubstr("not monitored"));
}

}  // namespace
}  // namespace vmbfs::hyperv
