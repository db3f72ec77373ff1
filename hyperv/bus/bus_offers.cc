// Offers: announced, taken back, come again (shared/specs/vmbus.md 3.4).

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"

namespace vmbfs::hyperv {
namespace {

// Confidential rings, confidential memory and pinned memory: a guest that did
// not agree to these features discards such an offer.
constexpr uint16_t kOfferFlagsNotNegotiated = 0x0002 | 0x0004 | 0x0008;

}  // namespace

absl::StatusOr<OfferId> Bus::Impl::Offer(const ChannelOffer& offer) {
  if (BusChannel* channel = channels_.FindByKey(offer); channel != nullptr) {
    if (!channel->withdrawn || channel->successor.has_value()) {
      return absl::AlreadyExistsError(
          absl::StrCat("instance ", offer.instance_id.ToString(), " is offered already"));
    }
    channels_.AddSuccessor(*channel, offer);
    return channel->successor->offer;
  }
  if (channels_.size() >= ChannelTable::kChannelsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(ChannelTable::kChannelsMax, " channels are offered"));
  }
  BusChannel& channel = channels_.Add(offer);
  if (connection_.offers_requested) SendOffer(channel);
  return channel.offer;
}

// The connection id is made of the channel's, SINT 2 and virtual trust level 0.
ChannelSignals Bus::Impl::DefaultSignals(uint32_t channel_id) {
  return {.connection_id = channel_id | (uint32_t{kVmbusSint} << 12),
          .event_flag = static_cast<uint16_t>(channel_id)};
}

void Bus::Impl::SendOffer(BusChannel& channel, uint32_t channel_id) {
  channels_.AssignId(channel, channel_id);
  if (channel.description.monitored && MonitorPageGpa() != 0) channels_.AssignMonitorId(channel);
  channel.state = ChannelState::kClosed;
  const ChannelOffer& description = channel.description;
  Send(BuildOfferChannel(
      {.interface_id = description.interface_id,
       .instance_id = description.instance_id,
       .flags = static_cast<uint16_t>(description.flags & ~kOfferFlagsNotNegotiated),
       .subchannel_index = description.subchannel_index,
       .user_defined = description.user_defined,
       .channel_id = channel.channel_id,
       .connection_id = DefaultSignals(channel.channel_id).connection_id,
       .monitor_id = channel.monitor_id}));
}

void Bus::Impl::On(const OffersRequest&) {
  if (connection_.offers_requested) {
    Drop("RequestOffers came twice");
    return;
  }
  connection_.offers_requested = true;
  for (BusChannel* channel : channels_.InOrder()) SendOffer(*channel);
  Send(BuildAllOffersDelivered());
}

void Bus::Impl::Revoke(OfferId offer) {
  if (BusChannel* const waiting = channels_.FindBySuccessor(offer); waiting != nullptr) {
    channels_.RemoveSuccessor(*waiting);
    port_.OfferReleased(offer);
    return;
  }
  BusChannel* const channel = channels_.FindByOffer(offer);
  if (channel == nullptr || channel->withdrawn) std::abort();  // no live offer of this bus
  channel->withdrawn = true;
  switch (channel->state) {
    case ChannelState::kReleased:
      FinishRelease(*channel);
      return;
    case ChannelState::kClosed:
      Rescind(*channel);
      return;
    case ChannelState::kOpening:
    case ChannelState::kOpen:
      AskToClose(*channel, ChannelState::kRevoking);
      return;
    case ChannelState::kClosing:
    case ChannelState::kClosingReopen:
      channel->state = ChannelState::kRevoking;
      return;
    case ChannelState::kClosingRelease:
      return;
    case ChannelState::kRevoking:
    case ChannelState::kRevoked:
      std::abort();  // states of withdrawn offers
  }
}

void Bus::Impl::Rescind(BusChannel& channel) {
  channel.state = ChannelState::kRevoked;
  Send(BuildRescindChannelOffer(channel.channel_id));
}

void Bus::Impl::On(const ReleaseChannelRequest& request) {
  BusChannel* const channel = channels_.FindById(request.channel_id);
  if (ReactionTo(ChannelRequest::kRelease, StateOf(channel)) == Reaction::kDrop) {
    DropFor(channel, request.channel_id, "RelIdReleased");
    return;
  }
  gpadls_.EraseChannel(channel->channel_id);
  LetGo(*channel);
}

// The guest no longer holds the channel: by its release, or with all others.
void Bus::Impl::LetGo(BusChannel& channel) {
  switch (channel.state) {
    case ChannelState::kReleased:
    case ChannelState::kClosingRelease:
      return;
    case ChannelState::kClosed:
    case ChannelState::kRevoked:
      FinishRelease(channel);
      return;
    case ChannelState::kOpening:
    case ChannelState::kOpen:
      AskToClose(channel, ChannelState::kClosingRelease);
      return;
    case ChannelState::kClosing:
    case ChannelState::kClosingReopen:
    case ChannelState::kRevoking:
      channel.state = ChannelState::kClosingRelease;
      return;
  }
}

// The guest and the device are both done with the channel. One that came back
// meanwhile is offered with the id it had; one that never left waits for the
// next connection.
void Bus::Impl::FinishRelease(BusChannel& channel) {
  const uint32_t channel_id = channel.channel_id;
  channels_.FreeIds(channel);
  channel.state = ChannelState::kReleased;
  if (!channel.withdrawn) return;
  port_.OfferReleased(channel.offer);
  if (!channel.successor.has_value()) {
    channels_.Remove(channel);
    return;
  }
  channels_.Succeed(channel);
  if (connection_.offers_requested) SendOffer(channel, channel_id);
}

// Stream sockets to the host are not offered; only from 4.1 is there a way to
// say so.
void Bus::Impl::On(const SocketConnectRequest& request) {
  if (!AtLeast(kVersion4_1)) {
    Drop("TlConnectRequest");
    return;
  }
  NoteRefusal("TlConnectRequest");
  Send(BuildSocketConnectResult(request, kStatusConnectionRefused));
}

}  // namespace vmbfs::hyperv
