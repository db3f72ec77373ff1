// The VMM with a VMBus of its own: what changes under a guest, and what goes
// wrong.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <array>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/channel_vmm_fixture.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

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
