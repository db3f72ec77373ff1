// A guest's messages on one side of the VMM with a VMBus of its own, a scripted
// server of the channel level on the other.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
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

inline constexpr Guid kInterface = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
inline constexpr Guid kInstance = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
inline constexpr uint32_t kGpadl = 0xE1E10;

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
    EXPECT_THAT(Taken(), testing::ElementsAre("10:0"));
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
    EXPECT_THAT(Taken(), testing::ElementsAre("6:0"));
    return open;
  }

  uint32_t channel_ = 0;
};

}  // namespace vmbfs::hyperv
