// Channels that are awake: turns without doorbells, and what ends them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/link_channels_fixture.h"
#include "hyperv/spin/spinner.h"

namespace vmbfs::hyperv {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kUnsealed = 0;
// Once awake, awake to the end of the test.
constexpr SpinOptions kForAnHour{.window = std::chrono::hours{1}, .percent_max = 100};

LinkOptions AllowUnsealed() {
  LinkOptions options;
  options.allow_unsealed_memory = true;
  return options;
}

class SpinTest : public LinkChannelsTest {
 protected:
  explicit SpinTest(const SpinOptions& spin = kForAnHour)
      : LinkChannelsTest(AllowUnsealed(), spin) {
    InstallVanishedMemoryHandler();
  }

  // Opens the channel and lets a request wake it.
  void Awake(TestVmm& vmm, GuestRings& rings) {
    Exchange(vmm, rings, "good morning");
    const int runs = device_->runs();
    ASSERT_TRUE(device_->WaitForRuns(runs + 100)) << "nobody looks";
  }
  // The echo of what was written, without a doorbell and without signals.
  std::string LookForEcho(GuestRings& rings, size_t bytes) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{30};
    std::string echo;
    while (echo.empty() && std::chrono::steady_clock::now() < deadline) echo = rings.Read(bytes);
    return echo;
  }
  void ExpectNoMoreTurns() {
    const int runs = device_->runs();
    std::this_thread::sleep_for(milliseconds{30});
    EXPECT_EQ(device_->runs(), runs);
  }
};

using AwakeChannelTest = SpinTest;

INSTANTIATE_TEST_SUITE_P(Deliveries, AwakeChannelTest,
                         ::testing::Values(kLinkDeliveryDirect, kLinkDeliveryMediated),
                         DeliveryName);

TEST_P(AwakeChannelTest, RequestsAreServedWithoutDoorbells) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Awake(vmm, rings);
  const uint64_t doorbells = Channel().doorbells;
  const int arms = device_->arms();
  for (int i = 0; i < 100; ++i) {
    const std::string text = "no bell " + std::to_string(1000 + i);
    rings.Write(text);
    ASSERT_EQ(LookForEcho(rings, text.size()), text);
  }
  EXPECT_EQ(Channel().doorbells, doorbells);
  EXPECT_EQ(device_->arms(), arms);
}

TEST_P(AwakeChannelTest, PauseEndsTheTurnsAndResumeServesWhatCameMeanwhile) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Awake(vmm, rings);
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  rings.Write("patience");
  ExpectNoMoreTurns();
  EXPECT_EQ(rings.Read(8), "");
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  EXPECT_EQ(LookForEcho(rings, 8), "patience");
  rings.Write("at once");
  EXPECT_EQ(LookForEcho(rings, 7), "at once");
}

TEST_P(AwakeChannelTest, CloseEndsTheTurnsAndTheNextOpenHasItsOwn) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  {
    GuestRings rings(vmm);
    Awake(vmm, rings);
  }
  Close(vmm);
  ASSERT_TRUE(device_->WaitForEvents(2));
  ExpectNoMoreTurns();
  ASSERT_EQ(vmm.OpenChannel(), 0u);
  GuestRings rings(vmm);
  Awake(vmm, rings);
}

TEST_P(AwakeChannelTest, RemovalEndsTheTurns) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Awake(vmm, rings);
  Remove();
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
  ExpectNoMoreTurns();
}

TEST_P(AwakeChannelTest, AFaultEndsTheTurns) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Awake(vmm, rings);
  device_->FailRun(absl::InvalidArgumentError("packet refused"));
  ASSERT_TRUE(device_->WaitForEvents(2));
  EXPECT_THAT(harness_.faults(), ElementsAre(HasSubstr("packet refused")));
  ExpectNoMoreTurns();
}

TEST_P(AwakeChannelTest, TheEndOfTheConnectionEndsTheTurns) {
  {
    Vmm vmm(harness_.path());
    OpenAll(vmm);
    GuestRings rings(vmm);
    Awake(vmm, rings);
  }
  ASSERT_TRUE(device_->WaitForEvents(2));
  ExpectNoMoreTurns();
}

TEST_P(AwakeChannelTest, MemoryThatVanishesFaultsTheChannelAtTheNextLook) {
  TestVmm vmm(harness_.path(), 1, GetParam(), SealShrink(), kUnsealed);
  device_->WantTurns(10);
  OpenAll(vmm);
  ASSERT_TRUE(device_->WaitForRuns(100)) << "nobody looks";
  ASSERT_EQ(::ftruncate(vmm.ring_fd(), 0), 0);
  ASSERT_TRUE(device_->WaitForEvents(2));
  EXPECT_THAT(harness_.faults(), ElementsAre(HasSubstr("vanished")));
  ExpectNoMoreTurns();
}

class ShortWindowTest : public SpinTest {
 protected:
  ShortWindowTest() : SpinTest({.window = milliseconds{2}, .percent_max = 100}) {}
};

INSTANTIATE_TEST_SUITE_P(Deliveries, ShortWindowTest, ::testing::Values(kLinkDeliveryDirect),
                         DeliveryName);

TEST_P(ShortWindowTest, AfterItsWindowTheChannelAsksForSignalsAndSleeps) {
  Vmm vmm(harness_.path());
  OpenAll(vmm);
  GuestRings rings(vmm);
  Exchange(vmm, rings, "good morning");
  std::this_thread::sleep_for(milliseconds{50});
  EXPECT_GE(device_->arms(), 1);
  ExpectNoMoreTurns();
  rings.Write("unheard");
  ExpectNoMoreTurns();
  vmm.RingDoorbell(vmm.channel_connection());
  EXPECT_EQ(LookForEcho(rings, 7), "unheard");
}

// Section 4.3: a guest without the feature bit makes room without a word.
TEST_P(ShortWindowTest, AChannelBlockedWithoutSignalsIsLookedAtByATimerWhileItRuns) {
  Vmm vmm(harness_.path());
  device_->ArmAs(Armed::kUnsignalled);
  OpenAll(vmm);
  const auto begin = std::chrono::steady_clock::now();
  const int runs = device_->runs();
  ASSERT_TRUE(device_->WaitForRuns(runs + 5));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds{40});

  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  ExpectNoMoreTurns();
  const int paused_runs = device_->runs();
  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  ASSERT_TRUE(device_->WaitForRuns(paused_runs + 5));

  device_->ArmAs(Armed::kSignal);
  std::this_thread::sleep_for(milliseconds{30});
  ExpectNoMoreTurns();
}

}  // namespace
}  // namespace vmbfs::hyperv
