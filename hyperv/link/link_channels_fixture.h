// A link with one fake device, for tests of the SynIC level with both deliveries.

#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "hyperv/link/fake_device.h"
#include "hyperv/link/guest_rings.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {

// The parameter is the delivery mode.
class LinkChannelsTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr uint32_t kFailure = 0x8000FFFF;
  static constexpr uint32_t kChannel = 1;  // the only one, so its id and event flag

  // A VMM of the delivery mode that the test runs with.
  class Vmm : public TestVmm {
   public:
    explicit Vmm(const std::string& path, uint32_t vp_count = 1)
        : TestVmm(path, vp_count, GetParam()) {}
  };

  explicit LinkChannelsTest(const LinkOptions& options = {}, const SpinOptions& spin = {})
      : harness_(options, spin) {
    Add();
  }

  void Add() {
    EXPECT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(device_); }).ok());
  }
  void Remove() {
    harness_.Do([&](LinkServer& server) {
      server.Remove(*device_);
      return 0;
    });
  }
  bool IsOpen() {
    return harness_.Do([&](LinkServer& server) { return server.IsOpen(*device_); });
  }
  LinkChannelStatus Channel() { return harness_.status().channels.at(0); }
  // From nothing to an open channel.
  void OpenAll(TestVmm& vmm, uint32_t version = 0x00040000, uint32_t target_vp = 0) {
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.ConnectBus(version));
    ASSERT_TRUE(vmm.CreateRingGpadl());
    ASSERT_EQ(vmm.OpenChannel(target_vp), 0u);
  }
  void Close(TestVmm& vmm) { vmm.Post(VmbusMessage(7, {kChannel})); }
  // One packet there and its echo back.
  void Exchange(TestVmm& vmm, GuestRings& rings, const std::string& text, uint32_t vp = 0) {
    rings.Write(text);
    vmm.RingDoorbell(vmm.channel_connection());
    std::string echo;
    while (echo.empty()) {
      ASSERT_TRUE(vmm.WaitForEvent(vp, kChannel));
      echo = rings.Read(text.size());  // the first signal may be the one after open
    }
    EXPECT_EQ(echo, text);
  }

  const std::shared_ptr<FakeDevice> device_ = std::make_shared<FakeDevice>();
  LinkHarness harness_;
};

inline std::string DeliveryName(const ::testing::TestParamInfo<uint32_t>& info) {
  return info.param == kLinkDeliveryDirect ? "Direct" : "Mediated";
}

}  // namespace vmbfs::hyperv
