#include "hyperv/guest/channel_vmm.h"

#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

VmmLink::Terms ChannelVmm::terms() const {
  return {.level = kLinkLevelChannel, .delivery = 0, .vp_count = vp_count()};
}

// The server has nothing to do with it.
absl::Status ChannelVmm::SetSynic(uint32_t vp, const SynicRegisters& registers, Deadline) {
  synic_.SetRegisters(vp, registers);
  return absl::OkStatus();
}

void ChannelVmm::HandleRequest(GuestLinkFrame frame) {
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
        Deliver(key.first, key.second, kSynicMessageType, messages.front());
    if (result == LinkMsgResult::kBusy) return;  // until EOM
    // Without a message page there is nobody to keep it for.
    messages.pop_front();
  }
  waiting_messages_.erase(found);
}

size_t ChannelVmm::waiting_messages() const {
  size_t count = 0;
  for (const auto& [key, messages] : waiting_messages_) count += messages.size();
  return count;
}

std::vector<int> ChannelVmm::events() const {
  std::vector<int> fds;
  for (const ForwardedChannels::Interrupt& interrupt : channels_.interrupts()) {
    fds.push_back(interrupt.fd);
  }
  return fds;
}

void ChannelVmm::TakeEvents() {
  for (const ForwardedChannels::Interrupt& interrupt : channels_.interrupts()) {
    if (TakeEventFd(interrupt.fd)) SetEventFlag(interrupt.target_vp, interrupt.event_flag);
  }
}

}  // namespace vmbfs::hyperv
