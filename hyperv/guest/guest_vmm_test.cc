// What a VMM of every form does: connecting, and its part of HvPostMessage.
// Numbered tests are the VMM's statements of shared/specs/vmbus.md section 13.

#include "hyperv/guest/guest_vmm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "hyperv/guest/guest_messages.h"
#include "hyperv/guest/vmm_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using testing::HasSubstr;

class GuestVmmTest : public VmmTest, public testing::WithParamInterface<GuestLink> {
 protected:
  absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(
      Deadline deadline = Soon(),
      std::chrono::milliseconds hello_patience = GuestVmm::kHelloPatience) {
    return VmmTest::Connect(GetParam(), deadline, hello_patience);
  }
  void ConnectWith(const std::function<void(Peer&)>& script) {
    VmmTest::ConnectWith(GetParam(), script);
  }
  void ConnectUsually() { VmmTest::ConnectUsually(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Links, GuestVmmTest, testing::ValuesIn(kGuestLinks),
                         [](const auto& test) { return std::string(GuestLinkName(test.param)); });

TEST_P(GuestVmmTest, HelloSaysTheFormTheProcessorsAndTheLabel) {
  ConnectWith([](Peer& peer) {
    const GuestLinkFrame hello = peer.AnswerHello();
    ASSERT_EQ(hello.payload.size(), sizeof(LinkHelloWire) + 4);
    const auto wire = *ParsePayload<LinkHelloWire>(std::span(hello.payload).first(44));
    EXPECT_EQ(wire.major.value(), 1u);
    EXPECT_EQ(wire.minor.value(), 1u);
    EXPECT_EQ(wire.level.value(), GetParam() == GuestLink::kChannel ? 2u : 1u);
    const uint32_t mode = GetParam() == GuestLink::kChannel    ? 0
                          : GetParam() == GuestLink::kMediated ? 2
                                                               : 1;
    EXPECT_EQ(wire.delivery_modes.value(), mode);
    EXPECT_EQ(wire.vp_count.value(), 2u);
    peer.TakeInitialState();
  });
  EXPECT_TRUE(vmm_.ok()) << vmm_.status();
}

TEST_P(GuestVmmTest, HandsOverMemoryAndSynicsBeforeStart) {
  ConnectWith([](Peer& peer) {
    peer.AnswerHello();
    const GuestLinkFrame memory = peer.Next(LinkType::kMemAdd);
    EXPECT_EQ(memory.descriptors.size(), 1u);
    EXPECT_EQ(Parse<LinkMemAddWire>(memory).bytes.value(), 64 * kPageBytes);
    peer.Reply(memory);
    if (GetParam() != GuestLink::kChannel) {
      for (uint32_t vp = 0; vp < 2; ++vp) {
        const auto synic = Parse<LinkSynicWire>(peer.Next(LinkType::kSynic));
        EXPECT_EQ(synic.vp.value(), vp);
        EXPECT_EQ(synic.simp.value(), vp == 0 ? 0x1001u : 0x3001u);
        EXPECT_EQ(synic.siefp.value(), vp == 0 ? 0x2001u : 0x4001u);
      }
    }
    peer.Next(LinkType::kStart);
  });
  EXPECT_TRUE(vmm_.ok()) << vmm_.status();
}

TEST_P(GuestVmmTest, HelloOkOfAnotherFormIsRefused) {
  ConnectWith([](Peer& peer) {
    LinkHelloOkWire ok{};
    ok.major = kLinkMajor;
    ok.level = GetParam() == GuestLink::kChannel ? 1 : 2;
    peer.Reply(peer.Next(LinkType::kHello), PayloadBytes(ok));
  });
  EXPECT_EQ(vmm_.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(GuestVmmTest, NoServerUntilTheDeadlineIsUnavailable) {
  EXPECT_EQ(Connect(Now() + std::chrono::milliseconds(50)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_P(GuestVmmTest, ServerThatComesLaterIsFound) {
  std::thread server([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    Listener listener(path_);
    Peer peer = listener.Accept();
    peer.AnswerHello();
    peer.TakeInitialState();
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

TEST_P(GuestVmmTest, BusyServerIsTriedAgain) {
  Listener listener(path_);
  std::thread server([&] {
    listener.Accept().Refuse(LinkType::kHello, 0, LinkError::kBusy, "another VMM is connected");
    Peer peer = listener.Accept();
    peer.AnswerHello();
    peer.TakeInitialState();
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

// A daemon that ends still accepts: only HELLO_OK is a sign of life.
TEST_P(GuestVmmTest, ConnectionsThatEndWithoutHelloOkAreTriedAgain) {
  Listener listener(path_);
  std::thread server([&] {
    listener.Accept();
    listener.Accept().Next(LinkType::kHello);
    Peer alive = listener.Accept();
    alive.AnswerHello();
    alive.TakeInitialState();
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

// One form is enough: this takes its time.
TEST_F(VmmTest, SilentConnectionIsGivenUpForAnother) {
  Listener listener(path_);
  std::thread server([&] {
    const Peer silent = listener.Accept();
    Peer alive = listener.Accept();
    alive.AnswerHello();
    alive.TakeInitialState();
  });
  EXPECT_TRUE(Connect(GuestLink::kDirect, Soon(), std::chrono::seconds(2)).ok());
  server.join();
}

TEST_P(GuestVmmTest, ConnectionsInTheBacklogOfADyingListenerAreTriedAgain) {
  auto dying = std::make_unique<Listener>(path_);
  std::thread server([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    dying.reset();
    Listener listener(path_);
    Peer peer = listener.Accept();
    peer.AnswerHello();
    peer.TakeInitialState();
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

TEST_P(GuestVmmTest, ConnectionsWithoutHelloOkUntilTheDeadlineAreUnavailable) {
  Listener listener(path_);
  const Deadline deadline = Now() + std::chrono::milliseconds(200);
  EXPECT_EQ(Connect(deadline, std::chrono::milliseconds(50)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_GE(Now(), deadline - std::chrono::milliseconds(50));
}

TEST_P(GuestVmmTest, RefusedMemoryIsReportedInTheServersWords) {
  ConnectWith([](Peer& peer) {
    peer.AnswerHello();
    peer.Refuse(LinkType::kMemAdd, peer.Next().seq, LinkError::kRefused, "not sealed");
  });
  EXPECT_EQ(vmm_.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(vmm_.status().message()), HasSubstr("not sealed"));
}

TEST_P(GuestVmmTest, RefusedUserIsNotTriedAgain) {
  ConnectWith(
      [](Peer& peer) { peer.Refuse(LinkType::kHello, 0, LinkError::kNotPermitted, "not you"); });
  EXPECT_EQ(vmm_.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(vmm_.status().message()), HasSubstr("not you"));
}

TEST_P(GuestVmmTest, Statement3BothMessageConnectionsWorkBeforeContactAndOthersAre0x12) {
  ConnectUsually();
  const std::array<std::byte, 8> message{};
  EXPECT_EQ(vmm().PostMessage(0, 1, message), 0u);
  EXPECT_EQ(vmm().PostMessage(1, 4, message), 0u);
  for (uint32_t connection : {0u, 2u, 3u, 5u, 0x2001u, 0xFFFFFFFFu}) {
    EXPECT_EQ(vmm().PostMessage(0, connection, message), 0x12u) << connection;
  }
}

TEST_P(GuestVmmTest, Statement4OverlongPostIsAnErrorAndChangesNothing) {
  ConnectUsually();
  const std::array<std::byte, 241> message{};
  EXPECT_EQ(vmm().PostMessage(0, 1, message), 5u);
  EXPECT_EQ(vmm().PostMessage(0, 2, message), 5u);
  EXPECT_TRUE(peer_->Silent());
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(vmm().PostMessage(0, 1, std::span(message).first(240)), 0u);
}

// Each unsupported contact is answered with one message, whoever the VMBus is.
TEST_P(GuestVmmTest, Statement4FloodIsRefusedWith0x13InTheEnd) {
  ConnectUsually();
  const GuestMessage contact = BuildInitiateContact(GuestProfile::kLinux, 0x00070000, 0, {});
  uint32_t accepted = 0;
  while (vmm().PostMessage(0, 4, contact) == kHypercallSuccess) {
    if (++accepted > 1000) break;
  }
  EXPECT_EQ(vmm().PostMessage(0, 4, contact), 0x13u);
  // One of them may be in the slot already.
  EXPECT_GE(accepted, 16u);
  EXPECT_LE(accepted, 17u);
}

TEST_P(GuestVmmTest, PauseAndResumeWaitForTheServersAnswer) {
  ConnectUsually();
  While([&] { return vmm().Pause(Soon()); }, [&] { peer_->Reply(peer_->Next(LinkType::kPause)); });
  While([&] { return vmm().Resume(Soon()); },
        [&] { peer_->Reply(peer_->Next(LinkType::kResume)); });
}

TEST_P(GuestVmmTest, ServerThatGoesAwayMakesWaitsUnavailableAndPostsRefused) {
  ConnectUsually();
  peer_.reset();
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(vmm().PostMessage(0, 1, {}), 0x13u);
  vmm().SignalEvent(0x2001);
}

TEST_P(GuestVmmTest, BytesThatAreNoFrameBreakTheLink) {
  ConnectUsually();
  peer_->Send(static_cast<LinkType>(0x12345678), 0, 1);
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST_P(GuestVmmTest, RequestOfAnotherFormIsNotSupportedAndTheLinkLives) {
  ConnectUsually();
  const bool channel = GetParam() == GuestLink::kChannel;
  peer_->Send(channel ? LinkType::kSintGet : LinkType::kOffer, kLinkFlagNeedAck, 9);
  WaitOnce();
  EXPECT_TRUE(peer_->Next().error());
  EXPECT_EQ(vmm().PostMessage(0, 1, {}), 0u);
}

}  // namespace
}  // namespace vmbfs::hyperv
