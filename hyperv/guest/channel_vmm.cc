#include "hyperv/guest/channel_vmm.h"

#include <poll.h>

#include <chrono>

#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

ChannelVmm::ChannelVmm(GuestLinkSocket socket, const GuestRam& ram,
                       std::span<const SynicPages> processors)
    : ram_(ram),
      synic_(ram, processors),
      link_(std::move(socket), [this](const GuestLinkFrame& frame) { HandleRequest(frame); }),
      bus_(*this),
      channels_(link_, bus_) {}

absl::Status ChannelVmm::SayHello(const std::string& label, Deadline deadline) {
  return link_.SayHello({.level = kLinkLevelChannel, .delivery = 0, .vp_count = synic_.vp_count()},
                        label, deadline);
}

absl::Status ChannelVmm::HandOver(Deadline deadline) {
  if (absl::Status added = link_.AddMemory(ram_, deadline); !added.ok()) return added;
  synic_.SetEnabled(true);
  return link_.Send(LinkType::kStart, {}, deadline);
}

void ChannelVmm::HandleRequest(const GuestLinkFrame& frame) {
  switch (frame.type) {
    case LinkType::kOffer:
      return channels_.HandleOffer(frame);
    case LinkType::kRevoke:
      return channels_.HandleRevoke(frame);
    default:
      if ((frame.flags & kLinkFlagNeedAck) == 0) return;
      return link_.Refuse(frame, LinkError::kNotSupported, "not known to this VMM");
  }
}

uint32_t ChannelVmm::PostMessage(uint32_t, uint32_t connection,
                                 std::span<const std::byte> message) {
  if (message.size() > kMessageBytesMax) return kHypercallInvalidParameter;
  if (connection != kMessageConnection && connection != kMultiClientMessageConnection) {
    return kHypercallInvalidConnectionId;
  }
  link_.Service();
  // An answer more for each post would be kept here for a guest that takes none.
  if (!link_.broken().ok() || waiting_messages() >= kLinkPostsMax) {
    return kHypercallInsufficientBuffers;
  }
  bus_.HandleMessage(connection, message);
  return kHypercallSuccess;
}

void ChannelVmm::SignalEvent(uint32_t connection) { channels_.SignalHost(connection); }

void ChannelVmm::EndOfMessage(uint32_t vp) { DeliverMessages({vp, kVmbusSint}); }

void ChannelVmm::SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  waiting_messages_[{vp, sint}].emplace_back(message.begin(), message.end());
  DeliverMessages({vp, sint});
}

void ChannelVmm::DeliverMessages(const SintKey& key) {
  const auto found = waiting_messages_.find(key);
  if (found == waiting_messages_.end()) return;
  std::deque<std::vector<std::byte>>& messages = found->second;
  while (!messages.empty()) {
    const LinkMsgResult result =
        synic_.Deliver(key.first, key.second, kSynicMessageType, messages.front());
    if (result == LinkMsgResult::kBusy) return;  // until EOM
    // Without a message page there is nobody to keep it for.
    messages.pop_front();
    if (result == LinkMsgResult::kDelivered) interrupted_ = true;
  }
  waiting_messages_.erase(found);
}

size_t ChannelVmm::waiting_messages() const {
  size_t count = 0;
  for (const auto& [key, messages] : waiting_messages_) count += messages.size();
  return count;
}

absl::Status ChannelVmm::Wait(Deadline deadline) {
  if (!link_.broken().ok()) return link_.broken();
  const bool interrupted = std::exchange(interrupted_, false);
  if (interrupted) deadline = std::chrono::steady_clock::now();
  const std::vector<ForwardedChannels::Interrupt> interrupts = channels_.interrupts();
  std::vector<pollfd> fds = {{.fd = link_.fd(), .events = POLLIN, .revents = 0}};
  for (const ForwardedChannels::Interrupt& interrupt : interrupts) {
    fds.push_back({.fd = interrupt.fd, .events = POLLIN, .revents = 0});
  }
  if (!PollUntil(fds, deadline) && !interrupted) {
    return absl::DeadlineExceededError("the server did not answer in time");
  }
  for (size_t index = 0; index < interrupts.size(); ++index) {
    if (fds[index + 1].revents == 0) continue;
    DrainEventFd(interrupts[index].fd);
    synic_.SetEventFlag(interrupts[index].target_vp, interrupts[index].event_flag);
  }
  if (fds[0].revents != 0) link_.Service();
  interrupted_ = false;
  return link_.broken();
}

absl::Status ChannelVmm::Reset(Deadline deadline) {
  synic_.SetEnabled(false);
  bus_.Reset();
  const LinkResetWire reset{};
  return link_.Ask(LinkType::kReset, 0, PayloadBytes(reset), {}, deadline).status();
}

absl::Status ChannelVmm::EnableSynics(Deadline) {
  synic_.SetEnabled(true);
  return absl::OkStatus();
}

absl::Status ChannelVmm::Pause(Deadline deadline) {
  return link_.Ask(LinkType::kPause, 0, {}, {}, deadline).status();
}

absl::Status ChannelVmm::Resume(Deadline deadline) {
  return link_.Ask(LinkType::kResume, 0, {}, {}, deadline).status();
}

}  // namespace vmbfs::hyperv
