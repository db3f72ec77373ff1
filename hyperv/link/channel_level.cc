#include "hyperv/link/channel_level.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {

ChannelLevel::ChannelLevel(LinkExchange& exchange, const GuestMemory& memory, uint32_t vp_count)
    : exchange_(exchange),
      memory_(memory),
      vp_count_(vp_count),
      channels_(std::make_shared<LinkChannels>(
          exchange, memory,
          [this](OfferId offer, const absl::Status& result) { OpenDone(offer, result); })) {}

// Offers

absl::Status ChannelLevel::AddDevice(std::shared_ptr<LinkDevice> device) {
  if (offers_.size() >= kOffersMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the VMM holds ", kOffersMax, " channels, revoked ones included"));
  }
  const OfferId offer{++last_offer_};
  Offered& offered = offers_[offer];
  offered.offer = offer;
  offered.content = device->device->offer();
  offered.content.monitored = exchange_.shared().monitored;
  channels_->AddDevice(offer, std::move(device));
  Ask(offer);
  return absl::OkStatus();
}

void ChannelLevel::Ask(OfferId offer) {
  waiting_.push_back(offer);
  AskNext();
}

void ChannelLevel::AskNext() {
  for (; !waiting_.empty() && unanswered_ < kUnansweredMax; ++unanswered_) {
    const Offered& offered = offers_.at(waiting_.front());
    waiting_.pop_front();
    offered.state == OfferState::kOffering ? SendOffer(offered) : SendRevoke(offered);
  }
}

void ChannelLevel::SendOffer(const Offered& offered) {
  const uint64_t seq = exchange_.Expect(
      LinkType::kOffer,
      [this, offer = offered.offer](const absl::Status& result, const LinkFrame& reply) {
        --unanswered_;
        absl::Status taken = OfferAnswered(offer, result, reply);
        AskNext();
        return taken;
      });
  exchange_.Send(BuildOffer(seq, offered.content));
}

absl::Status ChannelLevel::OfferAnswered(OfferId offer, const absl::Status& result,
                                         const LinkFrame& reply) {
  Offered& offered = offers_.at(offer);
  if (!result.ok()) {  // noted by the exchange
    channels_->RemoveDevice(offer);
    offers_.erase(offer);
    return absl::OkStatus();
  }
  const absl::StatusOr<LinkOfferOk> ok = ParseOfferOk(reply.payload);
  if (!ok.ok()) return ok.status();
  if (!by_channel_.emplace(ok->channel, offer).second) {
    return absl::InvalidArgumentError(
        absl::StrCat("OFFER reply names channel ", ok->channel, ", which another has"));
  }
  offered.channel = ok->channel;
  offered.relid = ok->relid;
  offered.state = OfferState::kClosed;
  if (offered.withdrawn) Revoke(offered);
  return absl::OkStatus();
}

void ChannelLevel::RemoveDevice(const LinkDevice& device) {
  const std::optional<OfferId> offer = channels_->OfferOf(*device.device);
  if (!offer.has_value()) return;
  channels_->RemoveDevice(*offer);
  Offered& offered = offers_.at(*offer);
  if (offered.state != OfferState::kOffering) {
    Revoke(offered);
  } else if (std::erase(waiting_, *offer) > 0) {  // the VMM has not heard of it
    offers_.erase(*offer);
  } else {
    offered.withdrawn = true;
  }
}

// The device is gone already, or was never used.
void ChannelLevel::Revoke(Offered& offered) {
  CloseChannel(offered);
  offered.state = OfferState::kRevoking;
  Ask(offered.offer);
}

void ChannelLevel::SendRevoke(const Offered& offered) {
  const uint64_t seq = exchange_.Expect(
      LinkType::kRevoke, [this, offer = offered.offer](const absl::Status&, const LinkFrame&) {
        --unanswered_;
        offers_.at(offer).state = OfferState::kRevoked;
        AskNext();
        return absl::OkStatus();
      });
  exchange_.Send(BuildRevoke(seq, offered.channel));
}

bool ChannelLevel::IsOpen(const LinkDevice& device) const {
  const std::optional<OfferId> offer = channels_->OfferOf(*device.device);
  return offer.has_value() && channels_->IsOpen(*offer);
}

// Rings

// Answers an OPEN under way, then a GPADL_DEL that waits.
void ChannelLevel::CloseChannel(Offered& offered) {
  channels_->Close(offered.offer);
  LetGoOfRing(offered);
  offered.state = OfferState::kClosed;
}

void ChannelLevel::OpenDone(OfferId offer, const absl::Status& result) {
  Offered& offered = offers_.at(offer);
  if (result.ok()) {
    offered.state = OfferState::kOpen;
    exchange_.Send(BuildResult(offered.open_request, kLinkStatusSuccess));
    return;
  }
  offered.state = OfferState::kClosed;
  Fail(offered.open_request, result);
  LetGoOfRing(offered);
}

void ChannelLevel::LetGoOfRing(Offered& offered) {
  if (std::exchange(offered.ring_page_frames, {}).empty()) return;
  gpadls_.Unhold(offered.channel, offered.ring_gpadl);
  if (offered.gpadl_del_request.has_value()) {
    exchange_.Acknowledge(*std::exchange(offered.gpadl_del_request, std::nullopt));
  }
}

void ChannelLevel::FaultUsersOf(uint32_t region) {
  channels_->FaultIf(
      [&](OfferId offer) {
        return memory_.RegionHoldsAny(region, offers_.at(offer).ring_page_frames);
      },
      absl::FailedPreconditionError(
          absl::StrCat("the VMM took memory region ", region, ", which holds the rings, away")));
}

void ChannelLevel::Reset() {
  for (auto& [id, offered] : offers_) {
    const OfferState state = offered.state;
    if (state != OfferState::kOpening && state != OfferState::kOpen) continue;
    CloseChannel(offered);
  }
  gpadls_.EraseAll();
}

void ChannelLevel::Describe(LinkStatus& status) const {
  status.level = "channel";
  for (LinkChannelStatus& channel : status.channels) {
    const std::optional<OfferId> offer = channels_->OfferOf(*channel.device);
    if (!offer.has_value()) continue;
    const Offered& offered = offers_.at(*offer);
    channel.open = channels_->IsServed(*offer);
    channel.bus.offer = *offer;
    channel.bus.channel_id = offered.relid;
    channel.bus.state = std::string(OfferStateText(offered.state));
    channel.bus.target_vp = offered.target_vp;
    channel.bus.gpadl_count = gpadls_.count_of(offered.channel);
  }
}

}  // namespace vmbfs::hyperv
