#include "tests/real_guest/vmm/channel_level.h"

#include "hyperv/link/link_format.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::test_vmm {

using hyperv::GuestLinkFrame;
using hyperv::LinkType;

ChannelLevel::ChannelLevel(const Options& options, hyperv::GuestLinkSocket socket,
                           const hyperv::GuestRam& ram, ProcessorMail& mail)
    : VmbusLink(options, std::move(socket), ram, mail,
                [this](const GuestLinkFrame& frame) { HandleRequest(frame); }),
      bus_(*this),
      channels_(link_, bus_) {}

hyperv::VmmLink::Terms ChannelLevel::terms() const {
  return {.level = hyperv::kLinkLevelChannel, .delivery = 0, .vp_count = processors()};
}

void ChannelLevel::HandleRequest(const GuestLinkFrame& frame) {
  switch (frame.type) {
    case LinkType::kOffer:
      return channels_.HandleOffer(frame);
    case LinkType::kRevoke:
      return channels_.HandleRevoke(frame);
    default:
      if ((frame.flags & hyperv::kLinkFlagNeedAck) == 0) return;
      return link_.Refuse(frame, hyperv::LinkError::kNotSupported, "not known to this VMM");
  }
}

void ChannelLevel::HandleMail(const ProcessorMail::Contents& contents) {
  for (const auto& [vp, state] : contents.synics) SetPages(vp, state);
  for (const auto& [connection, flag] : contents.signals) channels_.SignalHost(connection);
  from_guest_.insert(from_guest_.end(), contents.posts.begin(), contents.posts.end());
  MoveMessages();
}

void ChannelLevel::SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  to_guest_.push_back({.vp = vp, .sint = sint, .bytes = {message.begin(), message.end()}});
}

void ChannelLevel::HandleEndOfMessage(uint32_t) { MoveMessages(); }

// Messages to the guest as long as it takes them, then those from it.
void ChannelLevel::MoveMessages() {
  for (;;) {
    while (!to_guest_.empty()) {
      const Outgoing& message = to_guest_.front();
      const hyperv::LinkMsgResult result =
          DeliverMessage(message.vp, message.sint, hyperv::kSynicMessageType, message.bytes);
      if (result == hyperv::LinkMsgResult::kBusy) return;  // until end of message
      // Without a message page there is nobody to keep it for.
      to_guest_.pop_front();
    }
    if (from_guest_.empty()) return;
    const PostedMessage message = from_guest_.front();
    from_guest_.pop_front();
    bus_.HandleMessage(message.connection, message.bytes());
    mail_.PostsDone(1);
  }
}

std::vector<int> ChannelLevel::events() const {
  std::vector<int> events;
  for (const auto& interrupt : channels_.interrupts()) events.push_back(interrupt.fd);
  return events;
}

void ChannelLevel::HandleEvents() {
  for (const auto& interrupt : channels_.interrupts()) {
    uint64_t count = 0;
    if (read(interrupt.fd, &count, sizeof(count)) == sizeof(count)) {
      SetEventFlag(interrupt.target_vp, interrupt.event_flag);
    }
  }
  // What the link's answers made the Bus say.
  MoveMessages();
}

void ChannelLevel::ForgetGuest() {
  from_guest_.clear();
  bus_.Reset();
}

}  // namespace vmbfs::test_vmm
