// A link with one fake device, for tests of the channel level.

#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hyperv/link/fake_device.h"
#include "hyperv/link/guest_rings.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_channel_vmm.h"

namespace vmbfs::hyperv {

class ChannelLevelTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kChannel = 101;  // the first one's name

  ChannelLevelTest() { Add(device_); }

  void Add(const std::shared_ptr<FakeDevice>& device) {
    EXPECT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(device); }).ok());
  }
  void Remove(const std::shared_ptr<FakeDevice>& device) {
    harness_.Do([&](LinkServer& server) {
      server.Remove(*device);
      return 0;
    });
  }
  LinkChannelStatus Channel(size_t index = 0) { return harness_.status().channels.at(index); }
  std::string State() { return Channel().bus.state; }

  // From nothing to an open channel.
  void OpenAll(TestChannelVmm& vmm, uint32_t target_vp = 0) {
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.WaitForOffers(1));
    ASSERT_TRUE(vmm.AddRing(kChannel));
    ASSERT_TRUE(vmm.Open(kChannel, target_vp));
  }
  // One packet there and its echo back.
  void Exchange(TestChannelVmm& vmm, GuestRings& rings, const std::string& text) {
    rings.Write(text);
    vmm.Kick();
    std::string echo;
    while (echo.empty()) {
      ASSERT_TRUE(vmm.WaitForInterrupt());
      echo = rings.Read(text.size());  // the first signal may be the one after open
    }
    EXPECT_EQ(echo, text);
  }
  // An answer without an error.
  static bool Done(const std::optional<TestFrame>& reply) { return reply && !reply->error(); }
  // The code and text of an answer with one.
  static std::pair<uint32_t, std::string> Refusal(const std::optional<TestFrame>& reply) {
    if (!reply || !reply->error()) return {0, "not refused"};
    return {reply->error_code(), reply->error_text()};
  }

  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  LinkHarness harness_;
};

}  // namespace vmbfs::hyperv
