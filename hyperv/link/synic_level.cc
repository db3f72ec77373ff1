#include "hyperv/link/synic_level.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hyperv/link/synic_requests.h"

namespace vmbfs::hyperv {

SynicLevel::SynicLevel(LinkExchange& exchange, const GuestMemory& memory, uint32_t vp_count,
                       uint32_t delivery)
    : exchange_(exchange),
      memory_(memory),
      vp_count_(vp_count),
      delivery_(delivery),
      retry_timer_(exchange.executor()),
      synic_(delivery == kLinkDeliveryDirect
                 ? CreateDirectSynic(exchange, memory, [this] { Progress(); })
                 : CreateMediatedSynic(exchange)),
      channels_(std::make_shared<LinkChannels>(
          exchange, memory,
          [this](OfferId offer, const absl::Status& result) { OpenDone(offer, result); })),
      monitor_(exchange, memory, *channels_),
      bus_(*this) {}

// Devices

absl::Status SynicLevel::AddDevice(std::shared_ptr<LinkDevice> device) {
  ChannelOffer content = device->device->offer();
  content.monitored = exchange_.shared().monitored;
  const absl::StatusOr<OfferId> offer = bus_.Offer(content);
  if (!offer.ok()) return offer.status();
  channels_->AddDevice(*offer, std::move(device));
  return absl::OkStatus();
}

void SynicLevel::RemoveDevice(const LinkDevice& device) {
  const std::optional<OfferId> offer = channels_->OfferOf(*device.device);
  if (!offer.has_value()) return;
  channels_->RemoveDevice(*offer);
  bus_.Revoke(*offer);
}

bool SynicLevel::IsOpen(const LinkDevice& device) const {
  const std::optional<OfferId> offer = channels_->OfferOf(*device.device);
  return offer.has_value() && channels_->IsOpen(*offer);
}

void SynicLevel::FaultUsersOf(uint32_t region) {
  channels_->FaultIf(
      [&](OfferId offer) { return memory_.RegionHoldsAny(region, bus_.RingPageFrames(offer)); },
      absl::FailedPreconditionError(
          absl::StrCat("the VMM took memory region ", region, ", which holds the rings, away")));
}

void SynicLevel::MemoryChanged() {
  synic_->MemoryChanged();
  monitor_.MemoryChanged();
}

void SynicLevel::SetRunning(bool running) {
  running_ = running;
  if (running) synic_->SetRunning(true);  // first: channels signal through it
  channels_->SetRunning(running);
  monitor_.SetRunning(running);
  if (!running) synic_->SetRunning(false);
}

void SynicLevel::Reset() {
  ++resets_unanswered_;
  posts_.clear();
  bus_.Reset();
}

void SynicLevel::ResetAnswered() {
  --resets_unanswered_;
  Progress();
}

void SynicLevel::Describe(LinkStatus& status) const {
  status.level = "synic";
  status.delivery = delivery_ == kLinkDeliveryDirect ? "direct" : "mediated";
  status.bus = bus_.status();
  const std::vector<BusChannelStatus> bus_channels = bus_.channels();
  for (LinkChannelStatus& channel : status.channels) {
    const std::optional<OfferId> offer = channels_->OfferOf(*channel.device);
    if (!offer.has_value()) continue;
    channel.open = channels_->IsServed(*offer);
    for (const BusChannelStatus& bus_channel : bus_channels) {
      if (bus_channel.offer == *offer) channel.bus = bus_channel;
    }
  }
}

// Frames

absl::Status SynicLevel::HandleFrame(LinkFrame& frame) {
  switch (frame.header.type()) {
    case LinkType::kSynic:
      return HandleSynic(frame);
    case LinkType::kPost:
      return HandlePost(frame);
    case LinkType::kSignal:
      return HandleSignal(frame);
    default:
      return HandleEom(frame);
  }
}

absl::Status SynicLevel::CheckVp(uint32_t vp) const {
  if (vp < vp_count_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("VP ", vp, ", where HELLO said there are ", vp_count_));
}

absl::Status SynicLevel::HandleSynic(const LinkFrame& frame) {
  const absl::StatusOr<LinkSynic> state = ParseSynic(frame.payload);
  if (!state.ok()) return state.status();
  if (absl::Status status = CheckVp(state->vp); !status.ok()) return status;
  synic_->SetRegisters(state->vp, {.scontrol = state->scontrol,
                                   .siefp = state->siefp,
                                   .simp = state->simp,
                                   .sint2 = state->sint2});
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status SynicLevel::HandleSignal(const LinkFrame& frame) {
  const absl::StatusOr<LinkSignal> signal = ParseSignal(frame.payload);
  if (!signal.ok()) return signal.status();
  for (const auto& [offer, wired] : wired_) {
    if (wired.connection_id == signal->connection) channels_->Signalled(offer);
  }
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status SynicLevel::HandleEom(const LinkFrame& frame) {
  const absl::StatusOr<LinkSint> eom = ParseEom(frame.payload);
  if (!eom.ok()) return eom.status();
  if (absl::Status status = CheckVp(eom->vp); !status.ok()) return status;
  synic_->EndOfMessage(eom->vp, eom->sint);
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status SynicLevel::HandlePost(const LinkFrame& frame) {
  const absl::StatusOr<LinkPost> post = ParsePost(frame.payload);
  if (!post.ok()) return post.status();
  if (absl::Status status = CheckVp(post->vp); !status.ok()) return status;
  if (last_post_seq_ && post->post_seq <= *last_post_seq_) {
    return absl::InvalidArgumentError(
        absl::StrCat("POST ", post->post_seq, " after POST ", *last_post_seq_));
  }
  if (posts_.size() >= kLinkPostsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kLinkPostsMax, " posts that are not acknowledged"));
  }
  last_post_seq_ = post->post_seq;
  posts_.push_back(*post);
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

// Posts

void SynicLevel::Progress() {
  ConsumePosts();
  ArmRetry();
}

// Until a reset is answered the VMM takes our messages for the old guest's.
void SynicLevel::ConsumePosts() {
  while (running_ && resets_unanswered_ == 0 && !posts_.empty() && synic_->queued_messages() == 0 &&
         exchange_.HasRoom()) {
    const LinkPost post = posts_.front();
    posts_.pop_front();
    ++exchange_.shared().posts;
    if (post.type == kSynicVmbusMessageType && post.size <= post.payload.size()) {
      bus_.HandleMessage(post.connection, std::span(post.payload).first(post.size));
    } else {
      ++exchange_.shared().frames_refused;
    }
    exchange_.Send(BuildPostAck(exchange_.NextSeq(), post.post_seq));
  }
}

void SynicLevel::ArmRetry() {
  if (!running_ || synic_->queued_messages() == 0 || std::exchange(retry_armed_, true)) return;
  retry_timer_.expires_after(kRetry);
  retry_timer_.async_wait([look = exchange_.Guarded([this] {
    retry_armed_ = false;
    synic_->Retry();
    Progress();
  })](const boost::system::error_code& error) {
    if (!error) look();
  });
}

// The bus: its requests at once, the answers to it later

void SynicLevel::AnswerBus(std::function<void(Bus&)> answer) {
  exchange_.Later([this, answer = std::move(answer)] {
    answer(bus_);
    Progress();
  });
}

void SynicLevel::SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  if (vp >= vp_count_ || sint >= kLinkSints) return;  // the guest's own mistake
  if (synic_->queued_messages() >= Synic::kMessagesMax) {
    exchange_.FailLater(absl::ResourceExhaustedError("too many messages wait for the guest"));
    return;
  }
  synic_->PostMessage(vp, sint, message);
}

void SynicLevel::OpenChannel(const OpenRequest& request) {
  const auto wire =
      std::make_shared<SynicWire>(exchange_, *synic_, vp_count_,
                                  SynicWire::Numbers{.connection_id = request.connection_id,
                                                     .event_flag = request.event_flag,
                                                     .target_vp = request.target_vp});
  wired_[request.offer] = {.connection_id = request.connection_id, .wire = wire};
  if (request.monitor.has_value()) monitor_.Watch(request.offer, *request.monitor);
  channels_->Open(request.offer, request.incoming_page_frames, request.outgoing_page_frames, wire);
}

void SynicLevel::OpenDone(OfferId offer, const absl::Status& result) {
  result.ok() ? monitor_.Served() : monitor_.Forget(offer);
  AnswerBus([offer, result](Bus& bus) { bus.OpenDone(offer, result); });
}

void SynicLevel::CloseChannel(OfferId offer) {
  channels_->Close(offer);
  monitor_.Forget(offer);
  wired_.erase(offer);
  AnswerBus([offer](Bus& bus) { bus.CloseDone(offer); });
}

void SynicLevel::ModifyChannel(OfferId offer, uint32_t target_vp) {
  const auto done = [this, offer](const absl::Status& result) {
    AnswerBus([offer, result](Bus& bus) { bus.ModifyDone(offer, result); });
  };
  const auto found = wired_.find(offer);
  const auto wire = found == wired_.end() ? nullptr : found->second.wire.lock();
  if (wire == nullptr) {
    done(absl::FailedPreconditionError("the channel is not open"));
    return;
  }
  wire->Move(target_vp, done);
}

}  // namespace vmbfs::hyperv
