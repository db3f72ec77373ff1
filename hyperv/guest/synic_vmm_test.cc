// The VMM without a VMBus, in both ways of delivery, against a scripted server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/vmm_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using testing::ElementsAre;

class SynicVmmTest : public VmmTest {
 protected:
  void AcknowledgePosts(uint64_t post_seq) {
    LinkPostAckWire ack{};
    ack.post_seq = post_seq;
    peer_->Send(LinkType::kPostAck, 0, 1, PayloadBytes(ack));
  }

  void ExpectReset(uint64_t posts_before) {
    for (uint64_t post = 0; post < posts_before; ++post) peer_->Next(LinkType::kPost);
    for (int vp = 0; vp < 2; ++vp) {
      EXPECT_EQ(Parse<LinkSynicWire>(peer_->Next(LinkType::kSynic)).scontrol.value(), 0u);
    }
  }

  // MSG_SEND of one byte, and the VMM's result.
  uint32_t SendMessage(uint32_t vp, uint8_t content, uint32_t sint = 2) {
    LinkMsgSendWire message{};
    message.out_seq = ++out_seq_;
    message.vp = vp;
    message.sint = sint;
    message.type = kSynicVmbusMessageType;
    message.size = 1;
    message.payload[0] = content;
    peer_->Send(LinkType::kMsgSend, 0, 100 + out_seq_, PayloadBytes(message));
    EXPECT_TRUE(vmm().Wait(Soon()).ok());
    const GuestLinkFrame reply = peer_->Next(LinkType::kMsgSend);
    EXPECT_EQ(reply.flags, kLinkFlagReply);
    EXPECT_EQ(reply.seq, 100 + out_seq_);
    return Parse<LinkMsgSendResultWire>(reply).result.value();
  }

  std::optional<TakenMessage> Take(uint64_t vp) { return *Synic(vp).TakeMessage(); }

  GuestLinkFrame GetEvent(uint32_t vp, uint32_t flag, uint32_t sint = 2) {
    LinkEventGetWire get{};
    get.vp = vp;
    get.sint = sint;
    get.flag = flag;
    peer_->Send(LinkType::kEventGet, 0, 55, PayloadBytes(get));
    EXPECT_TRUE(vmm().Wait(Soon()).ok());
    return peer_->Next(LinkType::kEventGet);
  }

  uint64_t out_seq_ = 0;
};

TEST_F(SynicVmmTest, PostCarriesTheGuestsMessage) {
  ConnectUsually(GuestLink::kDirect);
  const std::array<std::byte, 240> message = {std::byte{7}};
  EXPECT_EQ(vmm().PostMessage(1, 4, message), 0u);
  const auto post = Parse<LinkPostWire>(peer_->Next(LinkType::kPost));
  EXPECT_EQ(post.post_seq.value(), 1u);
  EXPECT_EQ(post.vp.value(), 1u);
  EXPECT_EQ(post.connection.value(), 4u);
  EXPECT_EQ(post.type.value(), 1u);
  EXPECT_EQ(post.size.value(), 240u);
  EXPECT_EQ(post.payload[0].value(), 7u);
}

// Statement 4 of shared/specs/vmbus.md section 13.
TEST_F(SynicVmmTest, Statement4SeventeenthPostIs0x13AndNoAcceptedOneIsLost) {
  ConnectUsually(GuestLink::kDirect);
  std::array<std::byte, 8> message{};
  uint8_t content = 0;
  const auto post = [&] {
    message[0] = std::byte{static_cast<uint8_t>(content + 1)};
    const uint32_t status = vmm().PostMessage(0, 1, message);
    if (status == kHypercallSuccess) ++content;
    return status;
  };
  for (int number = 1; number <= 16; ++number) EXPECT_EQ(post(), kHypercallSuccess);
  EXPECT_EQ(post(), 0x13u);
  AcknowledgePosts(2);
  EXPECT_EQ(post(), kHypercallSuccess);
  EXPECT_EQ(post(), kHypercallSuccess);
  EXPECT_EQ(post(), 0x13u);
  for (uint64_t number = 1; number <= 18; ++number) {
    const auto frame = Parse<LinkPostWire>(peer_->Next(LinkType::kPost));
    EXPECT_EQ(frame.post_seq.value(), number);
    EXPECT_EQ(frame.payload[0].value(), number);
  }
  EXPECT_TRUE(peer_->Silent());
}

TEST_F(SynicVmmTest, AcknowledgementOfWhatWasNotPostedBreaksTheLink) {
  ConnectUsually(GuestLink::kDirect);
  AcknowledgePosts(1);
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SynicVmmTest, SintGetLendsAnInterruptThatWakesAndAnAckThatEomWrites) {
  ConnectUsually(GuestLink::kDirect);
  LinkSintWire sint{};
  sint.vp = 1;
  sint.sint = 2;
  peer_->Send(LinkType::kSintGet, 0, 77, PayloadBytes(sint));
  WaitOnce();
  const GuestLinkFrame reply = peer_->Next();
  EXPECT_EQ(reply.flags, kLinkFlagReply);
  EXPECT_EQ(reply.seq, 77u);
  ASSERT_EQ(reply.descriptors.size(), 2u);
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_EQ(eventfd_write(reply.descriptors[0].get(), 1), 0);
  EXPECT_TRUE(vmm().Wait(Soon()).ok());
  EXPECT_FALSE(Readable(reply.descriptors[0].get()));
  EXPECT_FALSE(Readable(reply.descriptors[1].get()));
  vmm().EndOfMessage(0);
  EXPECT_FALSE(Readable(reply.descriptors[1].get()));
  vmm().EndOfMessage(1);
  EXPECT_TRUE(Readable(reply.descriptors[1].get()));
}

TEST_F(SynicVmmTest, SintGetOfAnUnknownProcessorIsRefused) {
  ConnectUsually(GuestLink::kDirect);
  LinkSintWire sint{};
  sint.vp = 2;
  sint.sint = 2;
  peer_->Send(LinkType::kSintGet, 0, 78, PayloadBytes(sint));
  WaitOnce();
  EXPECT_TRUE(peer_->Next().error());
}

TEST_F(SynicVmmTest, SignalGoesToTheConnectionsEventfdAndOtherwiseOverTheSocket) {
  ConnectUsually(GuestLink::kDirect);
  UniqueFd doorbell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const std::array descriptors = {doorbell.get()};
  LinkConnWire conn{};
  conn.connection = 0x2001;
  peer_->Send(LinkType::kConnSet, 0, 5, PayloadBytes(conn), descriptors);
  // Not waited for: the signal looks after the socket itself.
  vmm().SignalEvent(0x2001);
  EXPECT_EQ(peer_->Next().flags, kLinkFlagReply);
  EXPECT_TRUE(Readable(doorbell.get()));

  peer_->Send(LinkType::kConnClr, 0, 6, PayloadBytes(conn));
  WaitOnce();
  EXPECT_EQ(peer_->Next().seq, 6u);
  vmm().SignalEvent(0x2001);
  const GuestLinkFrame signal = peer_->Next(LinkType::kSignal);
  EXPECT_EQ(Parse<LinkSignalWire>(signal).connection.value(), 0x2001u);
}

TEST_F(SynicVmmTest, ResetTurnsSynicsOffAndForgetsPostsThatWaited) {
  ConnectUsually(GuestLink::kDirect);
  const std::array<std::byte, 8> message{};
  for (int post = 0; post < 16; ++post) vmm().PostMessage(0, 1, message);
  While([&] { return vmm().Reset(Soon()); },
        [&] {
          ExpectReset(16);
          peer_->Reply(peer_->Next(LinkType::kReset));
        });
  EXPECT_EQ(vmm().PostMessage(0, 1, message), kHypercallSuccess);
}

TEST_F(SynicVmmTest, MediatedMessageGoesIntoItsSlotAndTheNextIsBusyUntilEom) {
  ConnectUsually(GuestLink::kMediated);
  EXPECT_EQ(SendMessage(1, 11), 0u);
  EXPECT_EQ(SendMessage(0, 12), 0u);  // another processor's slot
  EXPECT_EQ(SendMessage(1, 13), 1u);
  const std::optional<TakenMessage> first = Take(1);
  ASSERT_TRUE(first.has_value());
  EXPECT_THAT(first->span(), ElementsAre(std::byte{11}));
  EXPECT_TRUE(first->end_of_message);
  vmm().EndOfMessage(1);
  const auto eom = Parse<LinkSintWire>(peer_->Next(LinkType::kEom));
  EXPECT_EQ(eom.vp.value(), 1u);
  EXPECT_EQ(eom.sint.value(), 2u);
  EXPECT_EQ(SendMessage(1, 13), 0u);
  const std::optional<TakenMessage> second = Take(1);
  ASSERT_TRUE(second.has_value());
  EXPECT_THAT(second->span(), ElementsAre(std::byte{13}));
  EXPECT_FALSE(second->end_of_message);
  EXPECT_THAT(Take(0)->span(), ElementsAre(std::byte{12}));
}

TEST_F(SynicVmmTest, MediatedMessageWithoutAMessagePageIsResult2) {
  ConnectUsually(GuestLink::kMediated);
  EXPECT_EQ(SendMessage(2, 11), 2u);
  EXPECT_EQ(SendMessage(0, 11, 16), 2u);
  While([&] { return vmm().Reset(Soon()); },
        [&] {
          ExpectReset(0);
          const GuestLinkFrame reset = peer_->Next(LinkType::kReset);
          // What was meant for the guest before comes too late.
          LinkMsgSendWire message{};
          message.sint = 2;
          message.type = kSynicVmbusMessageType;
          peer_->Send(LinkType::kMsgSend, 0, 99, PayloadBytes(message));
          EXPECT_EQ(Parse<LinkMsgSendResultWire>(peer_->Next()).result.value(), 2u);
          peer_->Reply(reset);
        });
  EXPECT_EQ(SendMessage(0, 11), 2u);
  EXPECT_FALSE(Take(0).has_value());
  ASSERT_TRUE(vmm().EnableSynics(Soon()).ok());
  for (int vp = 0; vp < 2; ++vp) peer_->Next(LinkType::kSynic);
  EXPECT_EQ(SendMessage(0, 11), 0u);
}

TEST_F(SynicVmmTest, MediatedMessageThatIsTooLongBreaksTheLink) {
  ConnectUsually(GuestLink::kMediated);
  LinkMsgSendWire message{};
  message.size = 241;
  peer_->Send(LinkType::kMsgSend, 0, 99, PayloadBytes(message));
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SynicVmmTest, MediatedEventSetsItsFlagOnItsProcessorOnce) {
  ConnectUsually(GuestLink::kMediated);
  const GuestLinkFrame event = GetEvent(1, 2047);
  ASSERT_EQ(event.descriptors.size(), 1u);
  EXPECT_TRUE(event.payload.empty());
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_EQ(eventfd_write(event.descriptors[0].get(), 1), 0);
  EXPECT_TRUE(vmm().Wait(Soon()).ok());
  EXPECT_TRUE(Synic(0).TakeEventFlags().none());
  const EventFlags flags = Synic(1).TakeEventFlags();
  EXPECT_EQ(flags.count(), 1u);
  EXPECT_TRUE(flags.test(2047));
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  // Asked again, it is the same eventfd.
  const GuestLinkFrame again = GetEvent(1, 2047);
  ASSERT_EQ(again.descriptors.size(), 1u);
  ASSERT_EQ(eventfd_write(again.descriptors[0].get(), 1), 0);
  EXPECT_TRUE(Readable(event.descriptors[0].get()));
}

TEST_F(SynicVmmTest, MediatedEventThatNoGuestHasIsRefused) {
  ConnectUsually(GuestLink::kMediated);
  EXPECT_TRUE(GetEvent(2, 1).error());
  EXPECT_TRUE(GetEvent(0, 2048).error());
  EXPECT_TRUE(GetEvent(0, 1, 3).error());
}

}  // namespace
}  // namespace vmbfs::hyperv
