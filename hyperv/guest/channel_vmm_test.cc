// The VMM with a VMBus of its own: offers, opens, signals and closes.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/channel_vmm_fixture.h"
#include "hyperv/link/link_channel_format.h"

namespace vmbfs::hyperv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

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

}  // namespace
}  // namespace vmbfs::hyperv
