#include "hyperv/bus/bus.h"

#include <cstdlib>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"

namespace vmbfs::hyperv {
namespace {

template <typename Request>
constexpr bool kServedWhilePaused =
    std::is_same_v<Request, UnloadRequest> || std::is_same_v<Request, ResumeRequest>;

}  // namespace

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
        using Request = std::decay_t<decltype(each)>;
        if constexpr (std::is_same_v<Request, ContactRequest>) {
          OnContact(connection, each);
        } else if (connection_.paused && !kServedWhilePaused<Request>) {
          Drop("message while the guest pauses");
        } else {
          On(each);
        }
      },
      *request);
}

void Bus::Impl::Send(const HostMessage& message) {
  if (!connection_.paused) {
    SendTo(connection_.message_vp, kVmbusSint, message);
    return;
  }
  if (connection_.held.size() >= kHeldMessagesMax) std::abort();
  connection_.held.push_back(message);
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
  }
  status.target_vp = connection_.message_vp;
  status.offers_requested = connection_.offers_requested;
  if (connection_.client_id.has_value()) status.client_id = connection_.client_id->ToString();
  status.parent_to_child_monitor_page_gpa = connection_.monitor_pages.parent_to_child_gpa;
  status.child_to_parent_monitor_page_gpa = connection_.monitor_pages.child_to_parent_gpa;
  status.paused = connection_.paused;
  status.messages_held = connection_.held.size();
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
    if (channel->channel_id != 0) {
      const bool in_use = RingInUse(channel->state);
      const ChannelSignals signals =
          in_use ? channel->signals : DefaultSignals(channel->channel_id);
      if (in_use) status.target_vp = channel->target_vp;
      status.connection_id = signals.connection_id;
      status.event_flag = signals.event_flag;
      status.monitor_id = channel->monitor_id;
      status.gpadl_count = gpadls_.count_of(channel->channel_id);
    }
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
