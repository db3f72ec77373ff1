#include "hyperv/guest/forwarded_channels.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {
namespace {

// The Bus keeps the guest's own GPADLs; the server sees one at a time of each
// channel, the rings of its open.
constexpr uint32_t kRingGpadl = 1;

std::vector<LinkU64> WirePageFrames(std::span<const uint64_t> page_frames) {
  std::vector<LinkU64> wire(page_frames.size());
  for (size_t index = 0; index < wire.size(); ++index) wire[index] = page_frames[index];
  return wire;
}

// A memfd with these bytes that nobody can change any more.
absl::StatusOr<UniqueFd> SealedMemfd(std::span<const std::byte> bytes) {
  UniqueFd fd(memfd_create("vmbfs-page-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return absl::ErrnoToStatus(errno, "memfd_create for page frames");
  for (size_t written = 0; written < bytes.size();) {
    const ssize_t count = write(fd.get(), &bytes[written], bytes.size() - written);
    if (count <= 0) return absl::ErrnoToStatus(errno, "writing page frames");
    written += static_cast<size_t>(count);
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return absl::ErrnoToStatus(errno, "sealing page frames");
  }
  return fd;
}

// "6.0" as VMBus numbers it; 0 for none.
uint32_t VersionNumber(const std::string& version) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(version, absl::MaxSplits('.', 1));
  uint32_t major = 0;
  uint32_t minor = 0;
  if (!absl::SimpleAtoi(parts.first, &major) || !absl::SimpleAtoi(parts.second, &minor)) return 0;
  return major << 16 | minor;
}

// Replies are empty, or say what the guest is to be told; nullopt for others.
std::optional<absl::Status> ResultOf(const VmmLink::Answer& answer) {
  if (!answer.ok()) return answer.status();
  if (answer->empty()) return absl::OkStatus();
  const auto result = ParsePayload<LinkResultWire>(*answer);
  if (!result) return std::nullopt;
  if (result->status.value() == kLinkStatusSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("link: refused with status 0x%08x", result->status.value()));
}

}  // namespace

void ForwardedChannels::HandleOffer(const GuestLinkFrame& frame) {
  const auto wire = ParsePayload<LinkOfferWire>(frame.payload);
  if (!wire) return link_.BreakFor(frame);
  ChannelOffer offer;
  std::memcpy(offer.interface_id.bytes.data(), wire->interface_id, offer.interface_id.bytes.size());
  std::memcpy(offer.instance_id.bytes.data(), wire->instance_id, offer.instance_id.bytes.size());
  offer.flags = wire->flags.value();
  offer.subchannel_index = wire->subchannel_index.value();
  std::memcpy(offer.user_defined.data(), wire->user_defined, offer.user_defined.size());
  const absl::StatusOr<OfferId> id = bus_.Offer(offer);
  if (!id.ok()) return link_.Refuse(frame, LinkError::kRefused, std::string(id.status().message()));

  const uint32_t number = next_number_++;
  channels_[number].offer = *id;
  LinkOfferOkWire answer{};
  answer.channel = number;
  // 0 until the guest asks for offers: VMBus gives ids then.
  const std::vector<BusChannelStatus> states = bus_.channels();
  const auto state =
      std::find_if(states.begin(), states.end(),
                   [&](const BusChannelStatus& channel) { return channel.offer == *id; });
  if (state != states.end()) answer.relid = state->channel_id;
  link_.Reply(frame, PayloadBytes(answer), {});
}

void ForwardedChannels::HandleRevoke(const GuestLinkFrame& frame) {
  const auto wire = ParsePayload<LinkChannelWire>(frame.payload);
  if (!wire) return link_.BreakFor(frame);
  const auto found = channels_.find(wire->channel.value());
  if (found == channels_.end() || found->second.revoked) {
    return link_.Refuse(frame, LinkError::kRefused, "no such channel is offered");
  }
  found->second.revoked = true;
  // Before RELEASE, which the Bus may bring about at once.
  link_.Reply(frame, {}, {});
  bus_.Revoke(found->second.offer);
}

void ForwardedChannels::OfferReleased(OfferId offer) {
  LinkChannelWire release{};
  uint32_t number = 0;
  Find(offer, number);
  release.channel = number;
  channels_.erase(number);
  absl::Status sent =
      link_.Send(LinkType::kRelease, PayloadBytes(release), VmmLink::SendDeadline());
  if (!sent.ok()) link_.Break(sent);
}

void ForwardedChannels::OpenChannel(const OpenRequest& request) {
  uint32_t number = 0;
  ForwardedChannel& channel = Find(request.offer, number);
  channel.opening = true;
  channel.refusal = absl::OkStatus();
  channel.connection_id = request.connection_id;
  channel.event_flag = request.event_flag;
  channel.target_vp = request.target_vp;
  channel.downstream_page_offset = static_cast<uint32_t>(request.incoming_page_frames.size());
  channel.host_kick = NewEventFd();
  channel.guest_interrupt = NewEventFd();
  channel.phase = Phase::kAddingGpadl;
  std::vector<uint64_t> page_frames(request.incoming_page_frames.begin(),
                                    request.incoming_page_frames.end());
  page_frames.insert(page_frames.end(), request.outgoing_page_frames.begin(),
                     request.outgoing_page_frames.end());
  AddGpadl(number, page_frames);
}

void ForwardedChannels::AddGpadl(uint32_t number, std::span<const uint64_t> page_frames) {
  LinkGpadlAddWire add{};
  add.channel = number;
  add.gpadl = kRingGpadl;
  add.range_count = 1;
  add.pages = static_cast<uint32_t>(page_frames.size());
  const std::vector<LinkU64> wire = WirePageFrames(page_frames);
  const std::span<const std::byte> list = std::as_bytes(std::span(wire));
  const auto head = PayloadBytes(add);
  std::vector<std::byte> payload(head.begin(), head.end());
  std::vector<int> descriptors;
  UniqueFd memfd;
  if (page_frames.size() <= kLinkInlinePageFramesMax) {
    payload.insert(payload.end(), list.begin(), list.end());
  } else {
    absl::StatusOr<UniqueFd> sealed = SealedMemfd(list);
    if (!sealed.ok()) return link_.Break(sealed.status());
    memfd = *std::move(sealed);
    descriptors.push_back(memfd.get());
  }
  Ask(LinkType::kGpadlAdd, payload, descriptors, number, &ForwardedChannels::GpadlAdded);
}

void ForwardedChannels::GpadlAdded(uint32_t number, const absl::Status& result) {
  ForwardedChannel& channel = channels_.at(number);
  if (channel.closing || !result.ok()) {
    channel.refusal = result.ok() ? absl::CancelledError("closed while it opened") : result;
    return result.ok() ? DeleteGpadl(number) : LetGo(number);
  }
  channel.phase = Phase::kOpening;
  const BusStatus bus = bus_.status();
  LinkOpenWire open{};
  open.channel = number;
  open.ring_gpadl = kRingGpadl;
  open.downstream_page_offset = channel.downstream_page_offset;
  open.target_vp = channel.target_vp;
  open.vmbus_version = VersionNumber(bus.version);
  open.feature_flags = bus.features;
  const std::array descriptors = {channel.host_kick.get(), channel.guest_interrupt.get()};
  Ask(LinkType::kOpen, PayloadBytes(open), descriptors, number, &ForwardedChannels::Opened);
}

void ForwardedChannels::Opened(uint32_t number, const absl::Status& result) {
  ForwardedChannel& channel = channels_.at(number);
  if (!result.ok()) {
    channel.refusal = result;
    // Otherwise the answer to CLOSE, which is on its way, goes on from here.
    if (!channel.closing) DeleteGpadl(number);
    return;
  }
  channel.phase = Phase::kOpen;
  channel.opening = false;
  bus_.OpenDone(channel.offer, absl::OkStatus());
}

void ForwardedChannels::ModifyChannel(OfferId offer, uint32_t target_vp) {
  uint32_t number = 0;
  ForwardedChannel& channel = Find(offer, number);
  channel.moved_vp = target_vp;
  channel.moved_interrupt = NewEventFd();
  LinkModifyWire modify{};
  modify.channel = number;
  modify.target_vp = target_vp;
  const std::array descriptors = {channel.moved_interrupt.get()};
  Ask(LinkType::kModify, PayloadBytes(modify), descriptors, number, &ForwardedChannels::Modified);
}

void ForwardedChannels::Modified(uint32_t number, const absl::Status& result) {
  ForwardedChannel& channel = channels_.at(number);
  if (result.ok() && channel.moved_interrupt) {
    channel.target_vp = channel.moved_vp;
    channel.guest_interrupt = std::move(channel.moved_interrupt);
    // What the old one held is not lost: a signal too many does no harm.
    RingEventFd(channel.guest_interrupt.get());
  }
  channel.moved_interrupt.reset();
  bus_.ModifyDone(channel.offer, result);
}

void ForwardedChannels::CloseChannel(OfferId offer) {
  uint32_t number = 0;
  ForwardedChannel& channel = Find(offer, number);
  channel.closing = true;
  // Without an OPEN the server has nothing to close.
  if (channel.phase != Phase::kOpening && channel.phase != Phase::kOpen) return;
  LinkChannelWire close{};
  close.channel = number;
  Ask(LinkType::kClose, PayloadBytes(close), {}, number, &ForwardedChannels::Closed);
}

// Not earlier: the server keeps the answer to GPADL_DEL until the rings are closed.
void ForwardedChannels::Closed(uint32_t number, const absl::Status&) { DeleteGpadl(number); }

void ForwardedChannels::DeleteGpadl(uint32_t number) {
  channels_.at(number).phase = Phase::kDeletingGpadl;
  LinkGpadlDelWire remove{};
  remove.channel = number;
  remove.gpadl = kRingGpadl;
  Ask(LinkType::kGpadlDel, PayloadBytes(remove), {}, number, &ForwardedChannels::GpadlDeleted);
}

void ForwardedChannels::GpadlDeleted(uint32_t number, const absl::Status&) { LetGo(number); }

// The server holds nothing of the guest's any more.
void ForwardedChannels::LetGo(uint32_t number) {
  ForwardedChannel& channel = channels_.at(number);
  channel.phase = Phase::kClosed;
  channel.host_kick.reset();
  channel.guest_interrupt.reset();
  channel.moved_interrupt.reset();
  // In these calls the Bus may open the channel again, or be done with it.
  const OfferId offer = channel.offer;
  const absl::Status refusal = channel.refusal;
  const bool opening = std::exchange(channel.opening, false);
  const bool closing = std::exchange(channel.closing, false);
  if (opening) bus_.OpenDone(offer, refusal);
  if (closing) bus_.CloseDone(offer);
}

void ForwardedChannels::SignalHost(uint32_t connection) {
  for (const auto& [number, channel] : channels_) {
    if (channel.host_kick && channel.connection_id == connection) {
      RingEventFd(channel.host_kick.get());
    }
  }
}

std::vector<ForwardedChannels::Interrupt> ForwardedChannels::interrupts() const {
  std::vector<Interrupt> interrupts;
  for (const auto& [number, channel] : channels_) {
    if (!channel.guest_interrupt) continue;
    interrupts.push_back({.fd = channel.guest_interrupt.get(),
                          .target_vp = channel.target_vp,
                          .event_flag = channel.event_flag});
  }
  return interrupts;
}

ForwardedChannels::ForwardedChannel& ForwardedChannels::Find(OfferId offer, uint32_t& number) {
  for (auto& [candidate, channel] : channels_) {
    if (channel.offer != offer) continue;
    number = candidate;
    return channel;
  }
  std::abort();  // the Bus has no other offers than ours
}

void ForwardedChannels::Ask(LinkType type, std::span<const std::byte> payload,
                            std::span<const int> descriptors, uint32_t number, Step step) {
  link_.Request(type, payload, descriptors, [this, number, step](const VmmLink::Answer& answer) {
    if (!channels_.contains(number)) return;
    const std::optional<absl::Status> result = ResultOf(answer);
    if (!result) {
      return link_.Break(absl::UnavailableError("link: malformed answer about a channel"));
    }
    (this->*step)(number, *result);
  });
}

}  // namespace vmbfs::hyperv
