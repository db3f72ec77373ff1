// Whole runs: a scripted VMM and guest on one side, a fake device on the other.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/fake_device.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kFailure = 0x8000FFFF;
constexpr uint32_t kChannel = 1;  // the only one, so its id and event flag

// The guest's view of the ring pages.
class GuestRings {
 public:
  explicit GuestRings(const TestVmm& vmm) {
    EXPECT_TRUE(memory_
                    .AddRegion({.id = 1,
                                .gpa = TestVmm::kRingGpa,
                                .bytes = TestVmm::kRingPages * 4096,
                                .file_offset = 0},
                               UniqueFd(::dup(vmm.ring_fd())))
                    .ok());
    std::vector<uint64_t> frames;
    for (uint64_t i = 0; i < TestVmm::kRingPages; ++i) {
      frames.push_back((TestVmm::kRingGpa >> 12) + i);
    }
    const std::span<const uint64_t> all = frames;
    to_host_.emplace(*OutgoingRing::Open(*RingMemory::Map(memory_, all.first(5))));
    from_host_.emplace(*IncomingRing::Open(*RingMemory::Map(memory_, all.subspan(5))));
    EXPECT_FALSE(*from_host_->Arm());
  }

  void Write(const std::string& text) {
    EXPECT_TRUE(*to_host_->Reserve(text.size()));
    to_host_->CopyIn(0, std::as_bytes(std::span(text)));
    to_host_->Commit(text.size());
    (void)to_host_->Publish();
  }
  // The next packet's text, padding cut; empty when there is none.
  std::string Read(size_t bytes) {
    std::array<std::byte, 1024> buffer;
    const auto packet = from_host_->Read(buffer);
    if (!packet.ok() || !packet->has_value()) return {};
    (void)from_host_->Consume();
    EXPECT_FALSE(*from_host_->Arm());
    return {reinterpret_cast<const char*>(buffer.data()), bytes};
  }

 private:
  GuestMemory memory_;
  std::optional<OutgoingRing> to_host_;
  std::optional<IncomingRing> from_host_;
};

class LinkChannelsTest : public ::testing::Test {
 protected:
  LinkChannelsTest() { Add(); }

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

TEST_F(LinkChannelsTest, WholeLifeFromHelloToDisconnect) {
  {
    TestVmm vmm(harness_.path());
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
  TestVmm next(harness_.path());
  OpenAll(next);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open", "Close", "Open"));
}

TEST_F(LinkChannelsTest, DisconnectClosesTheDeviceAndKeepsIt) {
  {
    TestVmm vmm(harness_.path());
    OpenAll(vmm);
  }
  EXPECT_TRUE(device_->WaitForEvents(2));
  EXPECT_FALSE(IsOpen());
  TestVmm again(harness_.path());
  OpenAll(again);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close", "Open"));
}

TEST_F(LinkChannelsTest, GuestIsSignalledOnceMoreAfterOpen) {
  TestVmm vmm(harness_.path());
  OpenAll(vmm);  // the device has nothing to say
  EXPECT_TRUE(vmm.WaitForEvent(0, kChannel));
}

TEST_F(LinkChannelsTest, DeviceThatRefusesOpenMakesItFailAndIsNotClosed) {
  device_->FailOpen(absl::InternalError("out of order"));
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, OpenIsRefusedWhileNotAllowed) {
  const auto allow = [&](bool allowed) {
    harness_.Do([&](LinkServer& server) {
      server.SetOpenAllowed(*device_, allowed);
      return 0;
    });
  };
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  allow(false);
  EXPECT_EQ(vmm.OpenChannel(), kFailure);
  allow(true);
  EXPECT_EQ(vmm.OpenChannel(), 0u);
  EXPECT_THAT(device_->events(), ElementsAre("Open"));
}

TEST_F(LinkChannelsTest, RingsOutsideMemoryAndMissingVpsMakeOpenFail) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, ChannelWithoutInterruptIsServedAndNeverSignalled) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, SignalFrameServesWhereNoDoorbellDoes) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, DeviceThatHasMoreGetsMoreTurnsWithoutSignals) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, FaultEndsServiceUntilTheGuestReopens) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, MemoryThatGoesFaultsItsChannelBeforeTheAnswer) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, PauseHoldsTurnsMessagesAndPostsUntilResume) {
  TestVmm vmm(harness_.path());
  OpenAll(vmm);
  EXPECT_TRUE(device_->WaitForRuns(1));
  EXPECT_TRUE(vmm.WaitForEvent(0, kChannel));  // the one after open
  GuestRings rings(vmm);
  ASSERT_TRUE(vmm.Ask(LinkType::kPause, {}));
  EXPECT_TRUE(harness_.status().paused);
  const int runs = device_->runs();
  const uint64_t doorbells = Channel().doorbells;
  const uint64_t acknowledged = vmm.acknowledged();

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
  EXPECT_EQ(rings.Read(8), "");

  ASSERT_TRUE(vmm.Ask(LinkType::kResume, {}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 17u);  // UnloadComplete
  EXPECT_TRUE(vmm.WaitForAck(acknowledged + 1));
}

TEST_F(LinkChannelsTest, ResumeLooksAfterChannelsWithoutASignal) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, ResetClosesEverythingAndANewGuestStartsAfresh) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, UnloadClosesTheDeviceBeforeItIsAnswered) {
  TestVmm vmm(harness_.path());
  OpenAll(vmm);
  vmm.Post(VmbusMessage(16, {}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 17u);
  EXPECT_THAT(device_->events(), ElementsAre("Open", "Close"));
}

TEST_F(LinkChannelsTest, ModifyMovesTheInterruptToAnotherProcessor) {
  TestVmm vmm(harness_.path(), 2);
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

TEST_F(LinkChannelsTest, RemoveWhileTheOpenIsUnderWayFailsIt) {
  TestVmm vmm(harness_.path());
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

TEST_F(LinkChannelsTest, DeviceAddedToALiveConnectionIsOfferedAtOnce) {
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  const auto second =
      std::make_shared<FakeDevice>(Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592"));
  ASSERT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(second); }).ok());
  const std::vector<std::byte> offer = vmm.TakeMessage();
  EXPECT_EQ(WordAt(offer, 0), 1u);
  EXPECT_EQ(WordAt(offer, 184), 2u);
}

TEST_F(LinkChannelsTest, StopWithAnOpenChannelClosesItAndTheSocket) {
  TestVmm vmm(harness_.path());
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
