#include "hyperv/bus/bus.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"

namespace vmbfs::hyperv {

void Bus::Impl::HandleMessage(uint32_t connection, std::span<const std::byte> message) {
  ++messages_received_;
  if (connection != kMessageConnection && connection != kMultiClientMessageConnection) {
    Drop(absl::StrCat("message to connection ", connection));
    return;
  }
  const absl::StatusOr<GuestRequest> request = ParseGuestMessage(message, protocol_);
  if (!request.ok()) {
    Drop(request.status().message());
    return;
  }
  std::visit(
      [&](const auto& each) {
        if constexpr (std::is_same_v<std::decay_t<decltype(each)>, ContactRequest>) {
          OnContact(connection, each);
        } else {
          On(each);
        }
      },
      *request);
}

void Bus::Impl::SendTo(uint32_t vp, uint8_t sint, const HostMessage& message) {
  ++messages_sent_;
  port_.SendMessage(vp, sint, message);
}

void Bus::Impl::Drop(absl::string_view reason) {
  ++messages_dropped_;
  NoteRefusal(reason);
}

void Bus::Impl::NoteRefusal(absl::string_view reason) {
  last_drop_reason_ = std::string(reason.substr(0, kDropReasonBytesMax));
}

void Bus::Impl::DropFor(const BusChannel* channel, uint32_t guest_channel_id,
                        absl::string_view what) {
  Drop(absl::StrCat(
      what, " for channel ", guest_channel_id, ", which is ",
      channel == nullptr ? absl::string_view("unknown") : ChannelStateText(channel->state)));
}

ChannelState Bus::Impl::StateOf(const BusChannel* channel) {
  return channel == nullptr ? ChannelState::kReleased : channel->state;
}

BusStatus Bus::Impl::status() const {
  BusStatus status;
  switch (state_) {
    case ConnectionState::kDisconnected:
      status.state = "disconnected";
      break;
    case ConnectionState::kConnected:
      status.state = "connected";
      break;
    case ConnectionState::kDisconnecting:
      status.state = "disconnecting";
      break;
  }
  if (protocol_.has_value()) {
    status.version = VersionText(protocol_->version);
    status.features = protocol_->features;
    status.target_vp = message_vp_;
  }
  status.offers_requested = offers_requested_;
  status.messages_received = messages_received_;
  status.messages_dropped = messages_dropped_;
  status.messages_sent = messages_sent_;
  status.last_drop_reason = last_drop_reason_;
  status.gpadl_count = gpadls_.count();
  status.gpadl_pages = gpadls_.page_count();
  return status;
}

std::vector<BusChannelStatus> Bus::Impl::channels() const {
  std::vector<BusChannelStatus> statuses;
  for (const BusChannel* channel : channels_.InOrder()) {
    BusChannelStatus status;
    status.offer = channel->offer;
    status.channel_id = channel->channel_id;
    status.state = std::string(ChannelStateText(channel->state));
    if (RingInUse(channel->state)) status.target_vp = channel->target_vp;
    status.event_flag = static_cast<uint16_t>(channel->channel_id);
    if (channel->channel_id != 0) status.gpadl_count = gpadls_.count_of(channel->channel_id);
    statuses.push_back(status);
    if (channel->successor.has_value()) {
      BusChannelStatus waiting;
      waiting.offer = channel->successor->offer;
      waiting.state = "reoffered";
      statuses.push_back(waiting);
    }
  }
  return statuses;
}

Bus::Bus(BusPort& port) : impl_(std::make_unique<Impl>(port)) {}
Bus::~Bus() = default;

absl::StatusOr<OfferId> Bus::Offer(const ChannelOffer& offer) { return impl_->Offer(offer); }
void Bus::Revoke(OfferId offer) { impl_->Revoke(offer); }
void Bus::HandleMessage(uint32_t connection, std::span<const std::byte> message) {
  impl_->HandleMessage(connection, message);
}
void Bus::OpenDone(OfferId offer, const absl::Status& result) { impl_->OpenDone(offer, result); }
void Bus::CloseDone(OfferId offer) { impl_->CloseDone(offer); }
void Bus::ModifyDone(OfferId offer, const absl::Status& result) {
  impl_->ModifyDone(offer, result);
}
void Bus::Reset() { impl_->Reset(); }
std::span<const uint64_t> Bus::RingPageFrames(OfferId offer) const {
  return impl_->RingPageFrames(offer);
}
BusStatus Bus::status() const { return impl_->status(); }
std::vector<BusChannelStatus> Bus::channels() const { return impl_->channels(); }

}  // namespace vmbfs::hyperv
