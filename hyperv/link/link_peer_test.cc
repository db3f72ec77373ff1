// Peers that are slow, silent or dead.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/fake_device.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr uint32_t kHello = 0x564C0001;
constexpr uint32_t kPause = 0x564C0005;

LinkOptions Timeouts(milliseconds first_frame, milliseconds output) {
  LinkOptions options;
  options.connection.first_frame_timeout = first_frame;
  options.connection.output_timeout = output;
  return options;
}

void ExpectEnd(LinkHarness& harness, const UniqueFd& socket, const std::string& text) {
  const auto error = ReceiveFrame(socket);
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->error());
  EXPECT_THAT(error->error_text(), HasSubstr(text));
  EXPECT_FALSE(ReceiveFrame(socket).has_value());
  EXPECT_TRUE(harness.WaitForStatus([](const LinkStatus& status) { return status.peer_pid == 0; }));
  EXPECT_THAT(harness.status().last_error, HasSubstr(text));
}

UniqueFd Greeted(LinkHarness& harness) {
  UniqueFd socket = ConnectTo(harness.path());
  SendBytes(socket, FrameBytes(kHello, 0, 0, 1, HelloPayload(1)));
  const auto reply = ReceiveFrame(socket);
  EXPECT_TRUE(reply && !reply->error());
  return socket;
}

// Time.

TEST(LinkPeer, WhoSaysNothingIsEndedAndTheNextOneServed) {
  LinkHarness harness(Timeouts(milliseconds(50), milliseconds(30'000)));
  const UniqueFd silent = ConnectTo(harness.path());
  ExpectEnd(harness, silent, "no HELLO came within 50 ms");
  TestVmm vmm(harness.path());
  EXPECT_TRUE(vmm.SetUp());
}

TEST(LinkPeer, HalfAHelloIsNoHello) {
  LinkHarness harness(Timeouts(milliseconds(50), milliseconds(30'000)));
  const std::vector<std::byte> hello = FrameBytes(kHello, 0, 0, 1, HelloPayload(1));
  for (const size_t bytes : {size_t{1}, size_t{23}, size_t{24}, hello.size() - 1}) {
    SCOPED_TRACE(bytes);
    const UniqueFd slow = ConnectTo(harness.path());
    ASSERT_TRUE(SendBytes(slow, std::span(hello).first(bytes)));
    ExpectEnd(harness, slow, "no HELLO came within 50 ms");
  }
}

TEST(LinkPeer, HalfAFrameAfterHelloHurtsNobodyAndMayBeFinishedLater) {
  LinkHarness harness(Timeouts(milliseconds(50), milliseconds(50)));
  const UniqueFd socket = Greeted(harness);
  const std::vector<std::byte> pause = FrameBytes(kPause, 0, 0, 7, {});
  ASSERT_TRUE(SendBytes(socket, std::span(pause).first(11)));
  // Another VM on the same thread meanwhile; and both times have passed.
  ScratchFolder folder;
  LinkOptions options;
  options.socket_path = folder.Path("other.sock");
  auto other = std::make_unique<LinkServer>(harness.strand());
  harness.Do([&](LinkServer&) {
    EXPECT_TRUE(other->Listen(options).ok());
    other->Start();
    return 0;
  });
  TestVmm vmm(options.socket_path);
  EXPECT_TRUE(vmm.SetUp());
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_TRUE(vmm.Ask(LinkType::kPause, {}).has_value());
  EXPECT_TRUE(harness.status().connected);
  ASSERT_TRUE(SendBytes(socket, std::span(pause).subspan(11)));
  EXPECT_EQ(ReceiveFrame(socket)->seq, 7u);
  harness.Do([&](LinkServer&) {
    other->Stop();
    other.reset();
    return 0;
  });
}

TEST(LinkPeer, WhoLeavesOutputUnreadForTooLongIsEnded) {
  LinkHarness harness(Timeouts(milliseconds(30'000), milliseconds(50)));
  const UniqueFd socket = Greeted(harness);
  ASSERT_EQ(::fcntl(socket.get(), F_SETFL, O_NONBLOCK), 0);
  const std::vector<std::byte> pause = FrameBytes(kPause, 0, 0, 1, {});
  while (harness.status().connected) {
    (void)::send(socket.get(), pause.data(), pause.size(), MSG_NOSIGNAL);
  }
  EXPECT_THAT(harness.status().last_error, HasSubstr("read nothing for 50 ms"));
  TestVmm vmm(harness.path());
  EXPECT_TRUE(vmm.SetUp());
}

TEST(LinkPeer, WhoReadsAllThatIsSentMayTakeItsTime) {
  LinkHarness harness(Timeouts(milliseconds(30'000), milliseconds(50)));
  TestVmm vmm(harness.path());
  ASSERT_TRUE(vmm.SetUp());
  std::this_thread::sleep_for(milliseconds(150));
  EXPECT_TRUE(vmm.Ask(LinkType::kPause, {}).has_value());
}

// The guest's own number, which may be any: connection ids have 24 bits.
TEST(LinkPeer, SignalOnAConnectionThatCannotBeIsIgnored) {
  LinkHarness harness;
  TestVmm vmm(harness.path());
  ASSERT_TRUE(vmm.SetUp());
  for (const uint32_t connection : {0x01000000u, 0x01010001u, 0xFFFFFFFFu}) {
    LinkSignalWire signal{};
    signal.connection = connection;
    const auto reply = vmm.Ask(LinkType::kSignal, WireBytes(signal));
    ASSERT_TRUE(reply.has_value());
    EXPECT_FALSE(reply->error());
  }
}

// Answers that never come.

class UnansweredTest : public ::testing::Test {
 protected:
  static constexpr Guid kOther = Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592");

  UnansweredTest() {
    harness_.Do([&](LinkServer& server) {
      EXPECT_TRUE(server.Add(first_).ok());
      EXPECT_TRUE(server.Add(second_).ok());
      return 0;
    });
  }

  // Negotiates, takes both offers, and makes a GPADL for each channel over the
  // same ring pages.
  void Connect(TestVmm& vmm) {
    ASSERT_TRUE(vmm.SetUp());
    vmm.Post(VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0}));
    ASSERT_EQ(WordAt(vmm.TakeMessage(), 0), 15u);
    vmm.Post(VmbusMessage(3, {}));
    for (uint32_t channel = 1; channel <= 2; ++channel) {
      const std::vector<std::byte> offer = vmm.TakeMessage();
      ASSERT_EQ(WordAt(offer, 184), channel);
      connections_[channel] = WordAt(offer, 192);
    }
    ASSERT_EQ(WordAt(vmm.TakeMessage(), 0), 4u);
    for (uint32_t channel = 1; channel <= 2; ++channel) {
      constexpr uint32_t kRange = 8 + 8 * TestVmm::kRingPages;
      std::vector<std::byte> message =
          VmbusMessage(8, {channel, channel, 0x00010000 | kRange, TestVmm::kRingPages * 4096, 0});
      for (uint64_t i = 0; i < TestVmm::kRingPages; ++i) {
        const uint64_t page_frame = (TestVmm::kRingGpa >> 12) + i;
        const auto bytes = WireBytes(page_frame);
        message.insert(message.end(), bytes.begin(), bytes.end());
      }
      vmm.Post(message);
      ASSERT_EQ(WordAt(vmm.TakeMessage(), 0), 10u);
    }
  }
  void Open(TestVmm& vmm, uint32_t channel, uint32_t target_vp) {
    std::vector<std::byte> message =
        VmbusMessage(5, {channel, 70 + channel, channel, target_vp, TestVmm::kRingPages / 2});
    message.resize(148);
    vmm.Post(message);
  }
  void ExpectOpened(TestVmm& vmm, uint32_t channel) {
    const std::vector<std::byte> result = vmm.TakeMessage();
    EXPECT_EQ(WordAt(result, 0), 6u);
    EXPECT_EQ(WordAt(result, 8), channel);
    EXPECT_EQ(WordAt(result, 16), 0u);
  }

  const std::shared_ptr<FakeDevice> first_ = std::make_shared<FakeDevice>();
  const std::shared_ptr<FakeDevice> second_ = std::make_shared<FakeDevice>(kOther);
  std::array<uint32_t, 3> connections_{};
  LinkHarness harness_;
};

TEST_F(UnansweredTest, ConnSetHoldsUpItsOwnChannelOnly) {
  TestVmm vmm(harness_.path());
  Connect(vmm);
  vmm.LeaveUnanswered(LinkType::kConnSet, connections_[1]);
  Open(vmm, 1, 0);
  Open(vmm, 2, 0);
  ExpectOpened(vmm, 2);
  vmm.RingDoorbell(connections_[2]);
  EXPECT_TRUE(second_->WaitForRuns(2));
  EXPECT_EQ(first_->runs(), 0);
  // The guest gives up; the other channel goes on.
  vmm.Post(VmbusMessage(7, {1}));
  EXPECT_TRUE(vmm.Ask(LinkType::kReset, std::vector<std::byte>(8)).has_value());
  EXPECT_TRUE(harness_.status().connected);
}

TEST_F(UnansweredTest, SintGetHoldsUpTheChannelsOfItsProcessorOnly) {
  TestVmm vmm(harness_.path(), 2);
  Connect(vmm);
  vmm.LeaveUnanswered(LinkType::kSintGet, 1);
  Open(vmm, 1, 1);
  Open(vmm, 2, 0);
  ExpectOpened(vmm, 2);
  vmm.RingDoorbell(connections_[2]);
  EXPECT_TRUE(second_->WaitForRuns(2));
  EXPECT_EQ(first_->runs(), 0);
  EXPECT_TRUE(harness_.status().connected);
}

}  // namespace
}  // namespace vmbfs::hyperv
