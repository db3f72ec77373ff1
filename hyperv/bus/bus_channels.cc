// Channels: open, close, modify, and the devices' answers to them
// (shared/specs/vmbus.md 3.3).

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"
#include "hyperv/gpadl/ring_range.h"

namespace vmbfs::hyperv {

void Bus::Impl::On(const OpenChannelRequest& request) {
  BusChannel* const channel = channels_.FindById(request.channel_id);
  switch (ReactionTo(ChannelRequest::kOpen, StateOf(channel))) {
    case Reaction::kServe:
      StartOpen(*channel, request);
      return;
    case Reaction::kServeAfterClose:
      channel->state = ChannelState::kClosingReopen;
      channel->reopen = request;
      return;
    default:
      DropFor(channel, request.channel_id, "OpenChannel");
  }
}

void Bus::Impl::StartOpen(BusChannel& channel, const OpenChannelRequest& request) {
  const PageRanges* const ring = gpadls_.Hold(channel.channel_id, request.ring_gpadl_id);
  const absl::StatusOr<RingSplit> split = SplitRing(ring, request.downstream_page_offset);
  absl::Status checked = split.status();
  if (checked.ok() && request.guest_signals.has_value()) {
    checked = CheckSignals(channel, *request.guest_signals);
  }
  if (!checked.ok()) {
    if (ring != nullptr) gpadls_.Unhold(channel.channel_id, request.ring_gpadl_id);
    NoteRefusal(
        absl::StrCat("OpenChannel for channel ", channel.channel_id, ": ", checked.message()));
    Send(BuildOpenChannelResult(channel.channel_id, request.open_id, kStatusFailure));
    return;
  }
  channel.state = ChannelState::kOpening;
  channel.open = request;
  channel.ring = ring;
  channel.signals = request.guest_signals.value_or(DefaultSignals(channel.channel_id));
  channel.target_vp = request.target_vp;
  std::optional<MonitorTrigger> monitor;
  if (channel.monitor_id.has_value() && MonitorPageGpa() != 0) {
    monitor = {.guest_page_gpa = MonitorPageGpa(), .id = *channel.monitor_id};
  }
  port_.OpenChannel({.offer = channel.offer,
                     .channel_id = channel.channel_id,
                     .connection_id = channel.signals.connection_id,
                     .event_flag = channel.signals.event_flag,
                     .target_vp = request.target_vp,
                     .monitor = monitor,
                     .incoming_page_frames = split->incoming,
                     .outgoing_page_frames = split->outgoing});
}

// Where the guest chooses how a channel is signalled, it may take nothing that
// means another one. A channel counts until its device has closed.
absl::Status Bus::Impl::CheckSignals(const BusChannel& channel,
                                     const ChannelSignals& guest_signals) const {
  const auto [connection_id, event_flag] = guest_signals;
  if (event_flag >= kEventFlagsPerSint) {
    return absl::InvalidArgumentError(absl::StrCat("event flag ", event_flag));
  }
  if (connection_id == 0 || connection_id > kConnectionIdMax ||
      connection_id == kMessageConnection || connection_id == kMultiClientMessageConnection) {
    return absl::InvalidArgumentError(absl::StrCat("event connection ", connection_id));
  }
  for (const BusChannel* other : channels_.InOrder()) {
    if (other == &channel || !RingInUse(other->state)) continue;
    if (connection_id == other->signals.connection_id ||
        connection_id == DefaultSignals(other->channel_id).connection_id) {
      return absl::AlreadyExistsError(absl::StrCat("event connection ", connection_id,
                                                   " is channel ", other->channel_id, "'s"));
    }
    if (event_flag == other->signals.event_flag) {
      return absl::AlreadyExistsError(
          absl::StrCat("event flag ", event_flag, " is channel ", other->channel_id, "'s"));
    }
  }
  return absl::OkStatus();
}

void Bus::Impl::OpenDone(OfferId offer, const absl::Status& result) {
  BusChannel* const channel = channels_.FindByOffer(offer);
  if (StateOf(channel) != ChannelState::kOpening) return;
  if (result.ok()) {
    channel->state = ChannelState::kOpen;
    Send(BuildOpenChannelResult(channel->channel_id, channel->open.open_id, kStatusSuccess));
    return;
  }
  channel->state = ChannelState::kClosed;
  NoteRefusal(
      absl::StrCat("OpenChannel for channel ", channel->channel_id, ": the device refused"));
  Send(BuildOpenChannelResult(channel->channel_id, channel->open.open_id, kStatusFailure));
  LetGoOfRing(*channel);
}

void Bus::Impl::On(const CloseChannelRequest& request) {
  BusChannel* const channel = channels_.FindById(request.channel_id);
  if (ReactionTo(ChannelRequest::kClose, StateOf(channel)) == Reaction::kDrop) {
    DropFor(channel, request.channel_id, "CloseChannel");
    return;
  }
  AskToClose(*channel, ChannelState::kClosing);
}

void Bus::Impl::AskToClose(BusChannel& channel, ChannelState state) {
  channel.state = state;
  channel.moving_to_vp.reset();
  channel.next_vp.reset();
  port_.CloseChannel(channel.offer);
}

void Bus::Impl::CloseDone(OfferId offer) {
  BusChannel* const channel = channels_.FindByOffer(offer);
  switch (StateOf(channel)) {
    case ChannelState::kClosing:
      channel->state = ChannelState::kClosed;
      LetGoOfRing(*channel);
      return;
    case ChannelState::kClosingReopen:
      channel->state = ChannelState::kClosed;
      LetGoOfRing(*channel);
      StartOpen(*channel, channel->reopen);
      return;
    case ChannelState::kRevoking:
      LetGoOfRing(*channel);  // a teardown is answered before the Rescind
      Rescind(*channel);
      return;
    case ChannelState::kClosingRelease:
      LetGoOfRing(*channel);
      FinishRelease(*channel);
      FinishDisconnectIfDrained();
      return;
    default:
      return;  // nobody waits for it
  }
}

void Bus::Impl::LetGoOfRing(BusChannel& channel) {
  channel.ring = nullptr;
  if (gpadls_.Unhold(channel.channel_id, channel.open.ring_gpadl_id)) {
    Send(BuildGpadlTorndown(channel.open.ring_gpadl_id));
  }
}

std::span<const uint64_t> Bus::Impl::RingPageFrames(OfferId offer) const {
  const BusChannel* const channel = channels_.FindByOffer(offer);
  if (channel == nullptr || channel->ring == nullptr) return {};
  return channel->ring->range(0).page_frames;
}

void Bus::Impl::On(const ModifyChannelRequest& request) {
  BusChannel* const channel = channels_.FindById(request.channel_id);
  const bool served = ReactionTo(ChannelRequest::kModify, StateOf(channel)) == Reaction::kServe &&
                      channel->target_vp != kNoInterruptVp && request.target_vp != kNoInterruptVp;
  if (!served) {
    RefuseModify(request.channel_id);
  } else if (!channel->moving_to_vp.has_value()) {
    StartModify(*channel, request.target_vp);
  } else if (AtLeast(kVersion5_3)) {
    DropFor(channel, request.channel_id, "a second ModifyChannel");
  } else {
    channel->next_vp = request.target_vp;
  }
}

// Below 5.3 there is no way to say so.
void Bus::Impl::RefuseModify(uint32_t guest_channel_id) {
  const std::string reason = absl::StrCat("ModifyChannel for channel ", guest_channel_id);
  if (!AtLeast(kVersion5_3)) {
    Drop(reason);
    return;
  }
  NoteRefusal(reason);
  AnswerModify(guest_channel_id, kStatusFailure);
}

void Bus::Impl::StartModify(BusChannel& channel, uint32_t target_vp) {
  channel.moving_to_vp = target_vp;
  port_.ModifyChannel(channel.offer, target_vp);
}

void Bus::Impl::ModifyDone(OfferId offer, const absl::Status& result) {
  BusChannel* const channel = channels_.FindByOffer(offer);
  if (channel == nullptr || !channel->moving_to_vp.has_value()) return;
  if (result.ok()) channel->target_vp = *channel->moving_to_vp;
  channel->moving_to_vp.reset();
  AnswerModify(channel->channel_id, result.ok() ? kStatusSuccess : kStatusFailure);
  if (channel->next_vp.has_value()) {
    const uint32_t next_vp = *channel->next_vp;
    channel->next_vp.reset();
    StartModify(*channel, next_vp);
  }
}

void Bus::Impl::AnswerModify(uint32_t channel_id, uint32_t status) {
  if (AtLeast(kVersion5_3)) Send(BuildModifyChannelResponse(channel_id, status));
}

// Only Windows' crash dump uses reserved channels; a guest waits for this one
// answer, at the place it names (section 3.6).
void Bus::Impl::On(const OpenReservedChannelRequest& request) {
  const BusChannel* const channel = channels_.FindById(request.channel_id);
  if (ReactionTo(ChannelRequest::kOpenReserved, StateOf(channel)) == Reaction::kDrop ||
      request.target_sint > kSintMax) {
    DropFor(channel, request.channel_id, "OpenReservedChannel");
    return;
  }
  NoteRefusal("OpenReservedChannel");
  SendTo(request.target_vp, request.target_sint,
         BuildOpenChannelResult(request.channel_id, /*open_id=*/0, kStatusFailure));
}

void Bus::Impl::On(const CloseReservedChannelRequest& request) {
  DropFor(channels_.FindById(request.channel_id), request.channel_id, "CloseReservedChannel");
}

}  // namespace vmbfs::hyperv
