// What the channel level refuses: to the VMM with an ERROR, to the guest with a
// status, or by ending the connection.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/link/channel_level_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kFailure = kLinkStatusFailure;

class ChannelLevelRefusals : public ChannelLevelTest {
 protected:
  ChannelLevelRefusals() : vmm_(harness_.path()) {
    EXPECT_TRUE(vmm_.SetUp());
    EXPECT_TRUE(vmm_.WaitForOffers(1));
    EXPECT_TRUE(vmm_.AddRing(kChannel));
  }
  static uint32_t Status(const std::optional<TestFrame>& reply) {
    return TestChannelVmm::Status(reply);
  }
  // Fails the guest's open, with a reason that administrators see.
  void ExpectOpenFails(const LinkOpenWire& open, const std::string& reason) {
    EXPECT_EQ(Status(vmm_.Open(open)), kFailure);
    EXPECT_THAT(harness_.status().last_error, HasSubstr(reason));
  }
  // The connection ends with an ERROR of code 1.
  void ExpectEnd(const std::string& reason) {
    EXPECT_FALSE(vmm_.Ask(LinkType::kPause, {}).has_value());
    EXPECT_THAT(harness_.status().last_error, HasSubstr(reason));
  }
  static UniqueFd Event() { return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

  TestChannelVmm vmm_;
};

std::vector<uint64_t> Frames(size_t count) { return std::vector<uint64_t>(count, 0x100); }

TEST_F(ChannelLevelRefusals, UnknownChannelsAreRefusedInEveryRequest) {
  const std::string reason = "there is no channel 9";
  EXPECT_THAT(Refusal(vmm_.AddGpadl(9, 1, Frames(4))).second, HasSubstr(reason));
  EXPECT_THAT(Refusal(vmm_.DeleteGpadl(9, 1)).second, HasSubstr(reason));
  EXPECT_THAT(Refusal(vmm_.Open(TestChannelVmm::OpenPayload(9))).second, HasSubstr(reason));
  EXPECT_THAT(Refusal(vmm_.Modify(9, 0)).second, HasSubstr(reason));
  EXPECT_THAT(Refusal(vmm_.Close(9)).second, HasSubstr(reason));
  EXPECT_THAT(Refusal(vmm_.Release(9)).second, HasSubstr(reason));
  EXPECT_EQ(Refusal(vmm_.Close(9)).first, 3u);
  // RELEASE without NEED_ACK gets no answer: the next one is PAUSE's.
  LinkChannelWire nine{};
  nine.channel = 9;
  vmm_.Send(LinkType::kRelease, WireBytes(nine));
  EXPECT_TRUE(Done(vmm_.Ask(LinkType::kPause, {})));
}

TEST_F(ChannelLevelRefusals, RequestsThatTheStateDoesNotAllow) {
  EXPECT_THAT(Refusal(vmm_.Modify(kChannel, 0)).second, HasSubstr("channel 101 is closed"));
  ASSERT_TRUE(Done(vmm_.Ask(LinkType::kPause, {})));
  vmm_.SendOpen(TestChannelVmm::OpenPayload(kChannel));
  EXPECT_THAT(Refusal(vmm_.Open(TestChannelVmm::OpenPayload(kChannel))).second,
              HasSubstr("channel 101 is opening"));
  EXPECT_THAT(Refusal(vmm_.Modify(kChannel, 0)).second, HasSubstr("is opening"));
  ASSERT_TRUE(Done(vmm_.Ask(LinkType::kResume, {})));
  EXPECT_TRUE(harness_.WaitForStatus(
      [](const LinkStatus& status) { return status.channels[0].bus.state == "open"; }));
  EXPECT_THAT(Refusal(vmm_.Open(TestChannelVmm::OpenPayload(kChannel))).second,
              HasSubstr("channel 101 is open"));
  Remove(device_);
  ASSERT_TRUE(vmm_.WaitForRevokes(1));
  EXPECT_THAT(Refusal(vmm_.Modify(kChannel, 0)).second, HasSubstr("channel 101 is revok"));
  EXPECT_EQ(Status(vmm_.Open(TestChannelVmm::OpenPayload(kChannel))), kFailure);
}

TEST_F(ChannelLevelRefusals, GpadlsThatTheGuestIsToldOf) {
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(4), 2)), kFailure);  // two ranges
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(4), 0)), kFailure);
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, {})), kFailure);
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, TestChannelVmm::kRingGpadl, Frames(4))), kFailure);
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(4))), 0u);
  EXPECT_EQ(Refusal(vmm_.DeleteGpadl(kChannel, 9)).first, 3u);
}

TEST_F(ChannelLevelRefusals, PageFramesAreBounded) {
  const size_t left = 65'536 - TestVmmBase::kRingPages;
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(left + 1))), kFailure);
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(left))), 0u);
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 9, Frames(1))), kFailure);
  EXPECT_TRUE(Done(vmm_.DeleteGpadl(kChannel, 8)));
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 9, Frames(1))), 0u);
}

TEST_F(ChannelLevelRefusals, GpadlsAreBounded) {
  for (uint32_t i = 1; i < 4096; ++i) {
    ASSERT_EQ(Status(vmm_.AddGpadl(kChannel, 1000 + i, Frames(1))), 0u) << i;
  }
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 1000, Frames(1))), kFailure);
}

TEST_F(ChannelLevelRefusals, ListsInAMemfdAreReadWhole) {
  // A ring behind 400 other pages: only right if the whole list was read.
  std::vector<uint64_t> frames = RingFrames();
  frames.resize(405, frames.back());
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 8, frames)), 0u);
  LinkOpenWire open = TestChannelVmm::OpenPayload(kChannel);
  open.ring_gpadl = 8;
  EXPECT_EQ(Status(vmm_.Open(open)), 0u);
  EXPECT_TRUE(Done(vmm_.Close(kChannel)));
  frames.back() = 0x999999;  // nowhere
  EXPECT_EQ(Status(vmm_.AddGpadl(kChannel, 9, frames)), 0u);
  open.ring_gpadl = 9;
  ExpectOpenFails(open, "guest address 0x999999000");
}

TEST_F(ChannelLevelRefusals, ListsThatAreNotInASealedMemfdAreRefused) {
  LinkGpadlAddWire wire{};
  wire.channel = kChannel;
  wire.gpadl = 8;
  wire.range_count = 1;
  wire.pages = 401;
  const auto refusal = [&](const UniqueFd& fd) {
    return Refusal(vmm_.Ask(LinkType::kGpadlAdd, WireBytes(wire), {fd.get()})).second;
  };
  const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE}) {
    EXPECT_THAT(refusal(TestMemory(401 * 8, all & ~missing)), HasSubstr("sealed"));
  }
  EXPECT_THAT(refusal(TestMemory(401 * 8 - 1, all)), HasSubstr("ends after 3207 of 3208 bytes"));
  EXPECT_THAT(refusal(Event()), HasSubstr("sealed"));
  EXPECT_THAT(refusal(UniqueFd(::open("/proc/self/exe", O_RDONLY))), HasSubstr("sealed"));
  const UniqueFd good = TestMemory(401 * 8, all);
  EXPECT_EQ(Status(vmm_.Ask(LinkType::kGpadlAdd, WireBytes(wire), {good.get()})), 0u);
}

TEST_F(ChannelLevelRefusals, OpensThatTheGuestIsToldOf) {
  LinkOpenWire open = TestChannelVmm::OpenPayload(kChannel);
  open.ring_gpadl = 99;
  ExpectOpenFails(open, "no such GPADL");
  open = TestChannelVmm::OpenPayload(kChannel);
  for (const uint32_t offset : {0u, 1u, 9u, 10u, 0xFFFFFFFFu}) {
    open.downstream_page_offset = offset;
    ExpectOpenFails(open, "downstream page offset");
  }
  // The ring is not in use.
  EXPECT_TRUE(Done(vmm_.DeleteGpadl(kChannel, TestChannelVmm::kRingGpadl)));
  ASSERT_TRUE(vmm_.AddRing(kChannel));
  open = TestChannelVmm::OpenPayload(kChannel, TestChannelVmm::kVps);
  ExpectOpenFails(open, "target VP 2 of 2");
  ASSERT_EQ(Status(vmm_.AddGpadl(kChannel, 8, Frames(10))), 0u);
  open = TestChannelVmm::OpenPayload(kChannel);
  device_->FailOpen(absl::InternalError("out of order"));
  ExpectOpenFails(open, "out of order");
  device_->FailOpen(absl::OkStatus());
  harness_.Do([&](LinkServer& server) {
    server.SetOpenAllowed(*device_, false);
    return 0;
  });
  ExpectOpenFails(open, "not allowed now");
  EXPECT_EQ(State(), "closed");
  harness_.Do([&](LinkServer& server) {
    server.SetOpenAllowed(*device_, true);
    return 0;
  });
  // None of them left the ring in use.
  EXPECT_TRUE(Done(vmm_.DeleteGpadl(kChannel, TestChannelVmm::kRingGpadl)));
  ASSERT_TRUE(vmm_.AddRing(kChannel));
  EXPECT_TRUE(vmm_.Open(kChannel));
}

TEST_F(ChannelLevelRefusals, OpenFlagsAreNotSupported) {
  const UniqueFd a = Event();
  const UniqueFd b = Event();
  const UniqueFd c = Event();
  const auto refusal = [&](uint32_t flags, const std::vector<int>& descriptors) {
    LinkOpenWire open = TestChannelVmm::OpenPayload(kChannel);
    open.flags = flags;
    return Refusal(vmm_.Ask(LinkType::kOpen, WireBytes(open), descriptors));
  };
  const std::vector<int> two = {a.get(), b.get()};
  const std::vector<int> three = {a.get(), b.get(), c.get()};
  EXPECT_EQ(refusal(1, two).first, 2u);
  EXPECT_THAT(refusal(1, two).second, HasSubstr("resumed"));
  EXPECT_EQ(refusal(2, three).first, 2u);
  EXPECT_THAT(refusal(2, three).second, HasSubstr("direct events"));
  EXPECT_EQ(refusal(4, two).first, 2u);
  EXPECT_TRUE(vmm_.Open(kChannel));
  LinkModifyWire modify{};
  modify.channel = kChannel;
  EXPECT_EQ(Refusal(vmm_.Ask(LinkType::kModify, WireBytes(modify), two)).first, 2u);
}

TEST_F(ChannelLevelRefusals, DescriptorsThatAreNoEventfdsAreRefused) {
  const UniqueFd event = Event();
  const UniqueFd memory = TestMemory(4096, SealShrink());
  const LinkOpenWire open = TestChannelVmm::OpenPayload(kChannel);
  for (const std::vector<int>& descriptors :
       {std::vector{event.get(), memory.get()}, std::vector{memory.get(), event.get()}}) {
    const auto refusal = Refusal(vmm_.Ask(LinkType::kOpen, WireBytes(open), descriptors));
    EXPECT_EQ(refusal.first, 3u);
    EXPECT_THAT(refusal.second, HasSubstr("not an eventfd"));
  }
  EXPECT_TRUE(vmm_.Open(kChannel));
  LinkModifyWire modify{};
  modify.channel = kChannel;
  EXPECT_THAT(Refusal(vmm_.Ask(LinkType::kModify, WireBytes(modify), {memory.get()})).second,
              HasSubstr("not an eventfd"));
  EXPECT_THAT(Refusal(vmm_.Modify(kChannel, 2)).second, HasSubstr("target VP 2 of 2"));
}

TEST_F(ChannelLevelRefusals, OfferThatTheVmmRefusesIsNotThereOnThisConnection) {
  const auto second =
      std::make_shared<FakeDevice>(Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592"));
  vmm_.HoldAnswers();
  Add(second);
  ASSERT_TRUE(vmm_.WaitForOffers(2));
  vmm_.RefuseOffer(1);
  ASSERT_TRUE(Done(vmm_.Ask(LinkType::kPause, {})));
  EXPECT_THAT(harness_.status().last_error, HasSubstr("OFFER"));
  EXPECT_EQ(Channel(1).bus.state, "");
  Remove(second);
  EXPECT_TRUE(Done(vmm_.Ask(LinkType::kResume, {})));
  EXPECT_TRUE(vmm_.revoked().empty());
}

TEST_F(ChannelLevelRefusals, OffersThatTheVmmDoesNotReleaseAreBounded) {
  for (size_t offers = 1; offers < 2047; ++offers) {
    Remove(device_);
    Add(device_);
    ASSERT_TRUE(vmm_.WaitForOffers(offers + 1));
  }
  Remove(device_);
  const absl::Status result = harness_.Do([&](LinkServer& server) { return server.Add(device_); });
  EXPECT_TRUE(absl::IsResourceExhausted(result)) << result;
}

TEST_F(ChannelLevelRefusals, NameInUseEndsTheConnection) {
  const auto second =
      std::make_shared<FakeDevice>(Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592"));
  vmm_.HoldAnswers();
  Add(second);
  ASSERT_TRUE(vmm_.WaitForOffers(2));
  vmm_.AnswerOffer(1, kChannel);
  ExpectEnd("OFFER reply names channel 101, which another has");
}

TEST_F(ChannelLevelRefusals, OpenWithTheWrongNumberOfDescriptorsEndsTheConnection) {
  const UniqueFd event = Event();
  LinkOpenWire open = TestChannelVmm::OpenPayload(kChannel);
  vmm_.Send(LinkType::kOpen, WireBytes(open), 0, {event.get(), event.get(), event.get()});
  ExpectEnd("OPEN with flags 0x0 and 3 descriptors");
}

TEST_F(ChannelLevelRefusals, FramesOfTheSynicLevelAreNotSupported) {
  const LinkSintWire eom{};
  const auto refusal = Refusal(vmm_.Ask(LinkType::kEom, WireBytes(eom)));
  EXPECT_EQ(refusal.first, 2u);
  EXPECT_THAT(refusal.second, HasSubstr("EOM is not supported"));
}

}  // namespace
}  // namespace vmbfs::hyperv
