// The VMM with a VMBus of its own: a guest's messages on one side, a scripted
// server of the channel level on the other.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_messages.h"
#include "hyperv/guest/vmm_test_fixture.h"
#include "hyperv/guid/guid.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr Guid kInterface = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
constexpr Guid kInstance = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
constexpr uint32_t kGpadl = 0xE1E10;

class ChannelVmmTest : public VmmTest {
 protected:
  ChannelVmmTest() { ConnectUsually(GuestLink::kChannel); }

  static LinkOfferWire OfferOf(const Guid& instance) {
    LinkOfferWire offer{};
    std::memcpy(offer.interface_id, kInterface.bytes.data(), 16);
    std::memcpy(offer.instance_id, instance.bytes.data(), 16);
    offer.flags = 0x10;
    offer.user_defined[0] = 4;
    return offer;
  }

  // OFFER, and the VMM's name for the channel.
  uint32_t Offer(const Guid& instance = kInstance) {
    peer_->Send(LinkType::kOffer, 0, 7, PayloadBytes(OfferOf(instance)));
    EXPECT_TRUE(vmm().Wait(Soon()).ok());
    const GuestLinkFrame reply = peer_->Next(LinkType::kOffer);
    EXPECT_EQ(reply.flags, kLinkFlagReply);
    return Parse<LinkOfferOkWire>(reply).channel.value();
  }

  void Revoke(uint32_t channel) {
    LinkChannelWire revoke{};
    revoke.channel = channel;
    peer_->Send(LinkType::kRevoke, 0, 8, PayloadBytes(revoke));
    EXPECT_TRUE(vmm().Wait(Soon()).ok());
    EXPECT_EQ(peer_->Next(LinkType::kRevoke).flags, kLinkFlagReply);
  }

  // The server answers a request, and the VMM hears of it.
  void Answer(const GuestLinkFrame& request, std::span<const std::byte> payload = {}) {
    peer_->Reply(request, payload);
    EXPECT_TRUE(vmm().Wait(Soon()).ok());
  }
  void AnswerWithStatus(const GuestLinkFrame& request, uint32_t status) {
    LinkResultWire result{};
    result.status = status;
    Answer(request, PayloadBytes(result));
  }

  void Post(const GuestMessage& message) { EXPECT_EQ(vmm().PostMessage(0, 4, message), 0u); }

  // What the guest takes from its slot now, as "type" or "type:status".
  std::vector<std::string> Taken(uint64_t vp = 0) {
    std::vector<std::string> texts;
    for (;;) {
      const absl::StatusOr<std::optional<TakenMessage>> message = Synic(vp).TakeMessage();
      EXPECT_TRUE(message.ok()) << message.status();
      if (!message.ok() || !*message) return texts;
      if ((*message)->end_of_message) vmm().EndOfMessage(static_cast<uint32_t>(vp));
      texts.push_back(TextOf((*message)->span()));
    }
  }
  static std::string TextOf(std::span<const std::byte> message) {
    std::array<uint32_t, 5> words{};
    std::memcpy(words.data(), message.data(), std::min(message.size(), sizeof(words)));
    switch (static_cast<MessageType>(words[0])) {
      case MessageType::kOpenChannelResult:
      case MessageType::kGpadlCreated:
        return absl::StrCat(words[0], ":", words[4]);
      case MessageType::kModifyChannelResponse:
        return absl::StrCat(words[0], ":", words[3]);
      default:
        return absl::StrCat(words[0]);
    }
  }

  void Contact() {
    Post(BuildInitiateContact(GuestProfile::kLinux, kVersion5_3, 0, {}));
    Post(BuildHeaderOnly(MessageType::kRequestOffers));
    EXPECT_THAT(Taken(), testing::Contains("4"));
  }

  void CreateGpadl(size_t pages = 6) {
    std::vector<uint64_t> page_frames(pages);
    std::iota(page_frames.begin(), page_frames.end(), 10);
    for (const GuestMessage& message : BuildGpadl(GuestProfile::kLinux, 1, kGpadl, page_frames)) {
      Post(message);
    }
    EXPECT_THAT(Taken(), ElementsAre("10:0"));
  }

  void PostOpen(uint32_t target_vp = 0, uint32_t downstream_page_offset = 3) {
    Post(BuildOpenChannel(GuestProfile::kLinux, 1, kGpadl, target_vp, downstream_page_offset));
  }
  void PostClose() { Post(BuildChannelId(MessageType::kCloseChannel, 1)); }
  void PostTeardown() { Post(BuildGpadlTeardown(1, kGpadl)); }

  // An offered channel that the guest has opened; gives OPEN as it came.
  GuestLinkFrame Open(uint32_t target_vp = 0) {
    channel_ = Offer();
    Contact();
    CreateGpadl();
    PostOpen(target_vp);
    AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
    GuestLinkFrame open = peer_->Next(LinkType::kOpen);
    AnswerWithStatus(open, 0);
    EXPECT_THAT(Taken(), ElementsAre("6:0"));
    return open;
  }

  uint32_t channel_ = 0;
};

TEST_F(ChannelVmmTest, OfferedChannelReachesTheGuestUnderItsOwnName) {
  const uint32_t channel = Offer();
  EXPECT_NE(Offer(kInterface), channel);
  Post(BuildInitiateContact(GuestProfile::kLinux, kVersion5_3, 0, {}));
  Post(BuildHeaderOnly(MessageType::kRequestOffers));
  EXPECT_THAT(Taken(), ElementsAre("15", "1", "1", "4"));
}

TEST_F(ChannelVmmTest, HotAddedChannelIsOfferedAtOnce) {
  Contact();
  Offer();
  EXPECT_THAT(Taken(), ElementsAre("1"));
}

TEST_F(ChannelVmmTest, SecondOfferOfTheSameChannelIsRefused) {
  Offer();
  peer_->Send(LinkType::kOffer, 0, 9, PayloadBytes(OfferOf(kInstance)));
  WaitOnce();
  EXPECT_TRUE(peer_->Next().error());
}

TEST_F(ChannelVmmTest, OpenAddsTheRingsThenOpensWithTwoEventfdsThenTellsTheGuest) {
  channel_ = Offer();
  Contact();
  CreateGpadl();
  PostOpen(/*target_vp=*/1);
  const GuestLinkFrame add = peer_->Next(LinkType::kGpadlAdd);
  ASSERT_EQ(add.payload.size(), sizeof(LinkGpadlAddWire) + 6 * 8);
  const auto head = *ParsePayload<LinkGpadlAddWire>(std::span(add.payload).first(16));
  EXPECT_EQ(head.channel.value(), channel_);
  EXPECT_EQ(head.range_count.value(), 1u);
  EXPECT_EQ(head.pages.value(), 6u);
  std::array<uint64_t, 6> frames{};
  std::memcpy(frames.data(), &add.payload[16], sizeof(frames));
  EXPECT_THAT(frames, ElementsAre(10, 11, 12, 13, 14, 15));
  EXPECT_TRUE(peer_->Silent());

  AnswerWithStatus(add, 0);
  const GuestLinkFrame frame = peer_->Next(LinkType::kOpen);
  EXPECT_EQ(frame.descriptors.size(), 2u);
  const auto open = Parse<LinkOpenWire>(frame);
  EXPECT_EQ(open.channel.value(), channel_);
  EXPECT_EQ(open.ring_gpadl.value(), head.gpadl.value());
  EXPECT_EQ(open.downstream_page_offset.value(), 3u);
  EXPECT_EQ(open.target_vp.value(), 1u);
  EXPECT_EQ(open.flags.value(), 0u);
  EXPECT_EQ(open.vmbus_version.value(), 0x00050003u);
  EXPECT_THAT(Taken(), IsEmpty());
  AnswerWithStatus(frame, 0);
  EXPECT_THAT(Taken(), ElementsAre("6:0"));
}

TEST_F(ChannelVmmTest, MoreThan400PageFramesComeInASealedMemfd) {
  channel_ = Offer();
  Contact();
  CreateGpadl(401);
  PostOpen();
  const GuestLinkFrame add = peer_->Next(LinkType::kGpadlAdd);
  EXPECT_EQ(Parse<LinkGpadlAddWire>(add).pages.value(), 401u);
  ASSERT_EQ(add.descriptors.size(), 1u);
  const int fd = add.descriptors[0].get();
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  EXPECT_EQ(fcntl(fd, F_GET_SEALS) & seals, seals);
  std::vector<uint64_t> frames(402);
  EXPECT_EQ(pread(fd, frames.data(), frames.size() * 8, 0), 401 * 8);
  EXPECT_EQ(frames[0], 10u);
  EXPECT_EQ(frames[400], 410u);
}

TEST_F(ChannelVmmTest, FourHundredPageFramesComeInTheFrame) {
  channel_ = Offer();
  Contact();
  CreateGpadl(400);
  PostOpen();
  const GuestLinkFrame add = peer_->Next(LinkType::kGpadlAdd);
  EXPECT_TRUE(add.descriptors.empty());
  EXPECT_EQ(add.payload.size(), sizeof(LinkGpadlAddWire) + 400 * 8);
}

TEST_F(ChannelVmmTest, SignalsCrossByTheTwoEventfds) {
  const GuestLinkFrame open = Open(/*target_vp=*/1);
  const int host_kick = open.descriptors[0].get();
  const int guest_interrupt = open.descriptors[1].get();
  vmm().SignalEvent(0x2002);  // nobody's
  EXPECT_FALSE(Readable(host_kick));
  vmm().SignalEvent(0x2001);
  EXPECT_TRUE(Readable(host_kick));

  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_EQ(eventfd_write(guest_interrupt, 1), 0);
  WaitOnce();
  EXPECT_TRUE(Synic(0).TakeEventFlags().none());
  const EventFlags flags = Synic(1).TakeEventFlags();
  EXPECT_EQ(flags.count(), 1u);
  EXPECT_TRUE(flags.test(1));
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ChannelVmmTest, RefusedGpadlAndRefusedOpenAreTheGuestsFailureAndItMayTryAgain) {
  channel_ = Offer();
  Contact();
  CreateGpadl();
  PostOpen();
  AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0x8000FFFF);
  EXPECT_THAT(Taken(), ElementsAre("6:2147549183"));

  PostOpen();
  AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
  AnswerWithStatus(peer_->Next(LinkType::kOpen), 0x8000FFFF);
  // Not before the server has let go of the rings.
  EXPECT_THAT(Taken(), IsEmpty());
  Answer(peer_->Next(LinkType::kGpadlDel));
  EXPECT_THAT(Taken(), ElementsAre("6:2147549183"));

  PostOpen();
  AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
  AnswerWithStatus(peer_->Next(LinkType::kOpen), 0);
  EXPECT_THAT(Taken(), ElementsAre("6:0"));
}

TEST_F(ChannelVmmTest, CloseComesBeforeGpadlDelAndTorndownAfterBoth) {
  Open();
  PostClose();
  PostTeardown();
  const GuestLinkFrame close = peer_->Next(LinkType::kClose);
  EXPECT_EQ(Parse<LinkChannelWire>(close).channel.value(), channel_);
  EXPECT_TRUE(peer_->Silent());
  Answer(close);
  EXPECT_THAT(Taken(), IsEmpty());
  const GuestLinkFrame remove = peer_->Next(LinkType::kGpadlDel);
  EXPECT_EQ(Parse<LinkGpadlDelWire>(remove).channel.value(), channel_);
  EXPECT_THAT(Taken(), IsEmpty());
  Answer(remove);
  EXPECT_THAT(Taken(), ElementsAre("12"));
}

TEST_F(ChannelVmmTest, CloseWhileTheRingsAreAddedSendsNoOpen) {
  channel_ = Offer();
  Contact();
  CreateGpadl();
  PostOpen();
  const GuestLinkFrame add = peer_->Next(LinkType::kGpadlAdd);
  Post(BuildHeaderOnly(MessageType::kUnload));
  EXPECT_TRUE(peer_->Silent());
  AnswerWithStatus(add, 0);
  EXPECT_THAT(Taken(), IsEmpty());
  Answer(peer_->Next(LinkType::kGpadlDel));
  EXPECT_THAT(Taken(), ElementsAre("17"));
}

TEST_F(ChannelVmmTest, CloseWhileOpeningIsSentAtOnceWhateverTheOpensAnswer) {
  for (uint32_t status : {0x8000FFFFu, 0u}) {
    if (channel_ == 0) channel_ = Offer();
    Contact();
    CreateGpadl();
    PostOpen();
    AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
    const GuestLinkFrame open = peer_->Next(LinkType::kOpen);
    Post(BuildHeaderOnly(MessageType::kUnload));
    const GuestLinkFrame close = peer_->Next(LinkType::kClose);
    AnswerWithStatus(open, status);
    EXPECT_TRUE(peer_->Silent());
    Answer(close);
    Answer(peer_->Next(LinkType::kGpadlDel));
    EXPECT_THAT(Taken(), ElementsAre("17")) << status;
  }
}

TEST_F(ChannelVmmTest, RevokeOfAnOpenChannelClosesItThenRescindsAndReleasesWithTheGuest) {
  Open();
  Revoke(channel_);
  EXPECT_THAT(Taken(), IsEmpty());
  Answer(peer_->Next(LinkType::kClose));
  Answer(peer_->Next(LinkType::kGpadlDel));
  EXPECT_THAT(Taken(), ElementsAre("2"));
  EXPECT_TRUE(peer_->Silent());
  Post(BuildChannelId(MessageType::kRelIdReleased, 1));
  const auto release = Parse<LinkChannelWire>(peer_->Next(LinkType::kRelease));
  EXPECT_EQ(release.channel.value(), channel_);
}

TEST_F(ChannelVmmTest, RevokeOfAChannelThatNoGuestSawIsReleasedAtOnceAndItsNameNotUsedAgain) {
  const uint32_t first = Offer();
  Revoke(first);
  EXPECT_EQ(Parse<LinkChannelWire>(peer_->Next(LinkType::kRelease)).channel.value(), first);
  EXPECT_NE(Offer(), first);
}

TEST_F(ChannelVmmTest, DeviceThatComesBackBeforeTheReleaseIsOfferedAfterIt) {
  const uint32_t first = Offer();
  Contact();
  Revoke(first);
  EXPECT_THAT(Taken(), ElementsAre("2"));
  const uint32_t second = Offer();
  EXPECT_NE(second, first);
  EXPECT_THAT(Taken(), IsEmpty());
  Post(BuildChannelId(MessageType::kRelIdReleased, 1));
  EXPECT_EQ(Parse<LinkChannelWire>(peer_->Next(LinkType::kRelease)).channel.value(), first);
  EXPECT_THAT(Taken(), ElementsAre("1"));
}

TEST_F(ChannelVmmTest, RevokeOfWhatIsNotOfferedIsRefused) {
  const uint32_t channel = Offer();
  Contact();
  Revoke(channel);
  for (uint32_t unknown : {channel, channel + 1, 0u}) {
    LinkChannelWire revoke{};
    revoke.channel = unknown;
    peer_->Send(LinkType::kRevoke, 0, 8, PayloadBytes(revoke));
    WaitOnce();
    EXPECT_TRUE(peer_->Next(LinkType::kRevoke).error());
  }
}

TEST_F(ChannelVmmTest, ModifyMovesInterruptsToTheNewProcessorByANewEventfd) {
  Open();
  Post(BuildModifyChannel(1, 1));
  const GuestLinkFrame modify = peer_->Next(LinkType::kModify);
  EXPECT_EQ(Parse<LinkModifyWire>(modify).channel.value(), channel_);
  EXPECT_EQ(Parse<LinkModifyWire>(modify).target_vp.value(), 1u);
  ASSERT_EQ(modify.descriptors.size(), 1u);
  EXPECT_THAT(Taken(), IsEmpty());
  Answer(modify);
  EXPECT_THAT(Taken(), ElementsAre("24:0"));
  ASSERT_EQ(eventfd_write(modify.descriptors[0].get(), 1), 0);
  for (int wait = 0; wait < 2 && Readable(modify.descriptors[0].get()); ++wait) WaitOnce();
  EXPECT_TRUE(Synic(0).TakeEventFlags().none());
  EXPECT_TRUE(Synic(1).TakeEventFlags().test(1));
}

TEST_F(ChannelVmmTest, RefusedModifyLeavesInterruptsWhereTheyAre) {
  const GuestLinkFrame open = Open();
  Post(BuildModifyChannel(1, 7));
  const GuestLinkFrame modify = peer_->Next(LinkType::kModify);
  peer_->Refuse(LinkType::kModify, modify.seq, LinkError::kRefused, "no such processor");
  WaitOnce();
  EXPECT_THAT(Taken(), ElementsAre("24:2147549183"));
  ASSERT_EQ(eventfd_write(open.descriptors[1].get(), 1), 0);
  while (Readable(open.descriptors[1].get())) WaitOnce();
  EXPECT_TRUE(Synic(0).TakeEventFlags().test(1));
}

TEST_F(ChannelVmmTest, ResetClosesWhatIsOpenAndAFreshGuestOpensAgain) {
  Open();
  While([&] { return vmm().Reset(Soon()); },
        [&] {
          const GuestLinkFrame close = peer_->Next(LinkType::kClose);
          const GuestLinkFrame reset = peer_->Next(LinkType::kReset);
          peer_->Reply(close);
          peer_->Reply(reset);
        });
  EXPECT_THAT(Taken(), IsEmpty());
  // The reset took it already; the VMM need not know.
  const GuestLinkFrame remove = peer_->Next(LinkType::kGpadlDel);
  peer_->Refuse(LinkType::kGpadlDel, remove.seq, LinkError::kRefused, "no such GPADL");
  WaitOnce();
  ASSERT_TRUE(vmm().EnableSynics(Soon()).ok());
  Contact();
  CreateGpadl();
  PostOpen();
  AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
  AnswerWithStatus(peer_->Next(LinkType::kOpen), 0);
  EXPECT_THAT(Taken(), ElementsAre("6:0"));
}

TEST_F(ChannelVmmTest, ServerThatNeverAnswersAnOpenHoldsUpNoOtherRequest) {
  Offer();
  Contact();
  CreateGpadl();
  PostOpen();
  AnswerWithStatus(peer_->Next(LinkType::kGpadlAdd), 0);
  peer_->Next(LinkType::kOpen);
  Offer(kInterface);
  EXPECT_THAT(Taken(), ElementsAre("1"));
}

// Statement 4 of shared/specs/vmbus.md section 13.
TEST_F(ChannelVmmTest, Statement4EveryAcceptedPostOfAFloodIsAnswered) {
  const GuestMessage contact = BuildInitiateContact(GuestProfile::kLinux, 0x00070000, 0, {});
  size_t accepted = 0;
  while (vmm().PostMessage(0, 4, contact) == kHypercallSuccess) ++accepted;
  EXPECT_EQ(Taken(), std::vector<std::string>(accepted, "15"));
  EXPECT_EQ(vmm().PostMessage(0, 4, contact), kHypercallSuccess);
}

TEST_F(ChannelVmmTest, MalformedFramesBreakTheLink) {
  const std::array<std::byte, 3> junk{};
  for (LinkType type : {LinkType::kOffer, LinkType::kRevoke}) {
    ConnectUsually(GuestLink::kChannel);
    peer_->Send(type, 0, 3, junk);
    EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace vmbfs::hyperv
