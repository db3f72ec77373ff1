#include "tests/real_guest/vmm/synic_level.h"

#include <unistd.h>

#include <array>
#include <cstring>
#include <optional>

#include "hyperv/link/link_format.h"

namespace vmbfs::test_vmm {

using hyperv::GuestLinkFrame;
using hyperv::LinkError;
using hyperv::LinkType;
using hyperv::ParsePayload;
using hyperv::PayloadBytes;

SynicLevel::SynicLevel(const Options& options, hyperv::GuestLinkSocket socket,
                       const hyperv::GuestRam& ram, ProcessorMail& mail)
    : VmbusLink(options, std::move(socket), ram, mail,
                [this](GuestLinkFrame frame) { HandleRequest(std::move(frame)); }) {}

hyperv::VmmLink::Terms SynicLevel::terms() const {
  return {.level = hyperv::kLinkLevelSynic,
          .delivery = delivers() ? hyperv::kLinkDeliveryMediated : hyperv::kLinkDeliveryDirect,
          .vp_count = processors()};
}

absl::Status SynicLevel::AttachConnections() {
  absl::Status result;
  for (const auto& [connection, fd] : connections_) {
    result.Update(machine_->SetConnection(connection, fd.get()));
  }
  return result;
}

// Registers before messages: the answers to these need them.
void SynicLevel::HandleMail(const ProcessorMail::Contents& contents) {
  for (const auto& [vp, state] : contents.synics) {
    SetPages(vp, state);
    hyperv::LinkSynicWire synic{};
    synic.vp = vp;
    synic.scontrol = state.scontrol;
    synic.siefp = state.siefp;
    synic.simp = state.simp;
    synic.sint2 = state.sint2;
    Send(LinkType::kSynic, synic);
  }
  for (const PostedMessage& message : contents.posts) {
    hyperv::LinkPostWire post{};
    post.post_seq = ++posts_sent_;
    post.vp = message.vp;
    post.connection = message.connection;
    post.type = message.type;
    post.size = message.size;
    std::memcpy(post.payload, message.payload.data(), message.size);
    Send(LinkType::kPost, post);
  }
  for (const auto& [connection, flag] : contents.signals) {
    hyperv::LinkSignalWire signal{};
    signal.connection = connection;
    signal.flag = flag;
    Send(LinkType::kSignal, signal);
  }
}

std::vector<int> SynicLevel::events() const {
  std::vector<int> events;
  for (const auto& [event, fd] : events_) events.push_back(fd.get());
  return events;
}

void SynicLevel::HandleEvents() {
  for (const auto& [event, fd] : events_) {
    uint64_t count = 0;
    if (read(fd.get(), &count, sizeof(count)) == sizeof(count)) {
      SetEventFlag(event.first, event.second);
    }
  }
}

void SynicLevel::HandleEndOfMessage(uint32_t vp) {
  hyperv::LinkSintWire eom{};
  eom.vp = vp;
  eom.sint = hyperv::kSynicVmbusSint;
  Send(LinkType::kEom, eom);
}

// The server drops posts that waited without an acknowledgement, and no channel
// is open, so that nobody signals.
void SynicLevel::ForgetGuest() {
  posts_acknowledged_ = posts_sent_;
  events_.clear();
}

void SynicLevel::HandleRequest(GuestLinkFrame frame) {
  switch (frame.type) {
    case LinkType::kPostAck:
      return HandlePostAck(frame);
    case LinkType::kConnSet:
      return HandleConnSet(std::move(frame));
    case LinkType::kConnClr:
      return HandleConnClr(frame);
    case LinkType::kSintGet:
      return HandleSintGet(frame);
    case LinkType::kMsgSend:
      return HandleMsgSend(frame);
    case LinkType::kEventGet:
      return HandleEventGet(frame);
    default:
      if ((frame.flags & hyperv::kLinkFlagNeedAck) == 0) return;
      return link_.Refuse(frame, LinkError::kNotSupported, "not known to this VMM");
  }
}

void SynicLevel::HandlePostAck(const GuestLinkFrame& frame) {
  const auto ack = ParsePayload<hyperv::LinkPostAckWire>(frame.payload);
  if (!ack || ack->post_seq.value() > posts_sent_) return link_.BreakFor(frame);
  // One from before a reset is late.
  if (ack->post_seq.value() <= posts_acknowledged_) return;
  mail_.PostsDone(ack->post_seq.value() - posts_acknowledged_);
  posts_acknowledged_ = ack->post_seq.value();
}

void SynicLevel::HandleSintGet(const GuestLinkFrame& frame) {
  const auto sint = ParsePayload<hyperv::LinkSintWire>(frame.payload);
  if (!sint || sint->vp.value() >= processors() || sint->sint.value() != hyperv::kSynicVmbusSint) {
    return link_.Refuse(frame, LinkError::kRefused, "no such interrupt source");
  }
  const std::array descriptors = {irq(sint->vp.value()), ack(sint->vp.value())};
  link_.Reply(frame, {}, descriptors);
}

void SynicLevel::HandleConnSet(GuestLinkFrame frame) {
  const auto wire = ParsePayload<hyperv::LinkConnWire>(frame.payload);
  if (!wire || frame.descriptors.size() != 1) return link_.BreakFor(frame);
  if (connections_.size() >= kConnectionsMax) {
    return link_.Refuse(frame, LinkError::kRefused, "too many connections");
  }
  const uint32_t connection = wire->connection.value();
  hyperv::UniqueFd& event_fd = connections_[connection];
  if (machine_ != nullptr) {
    if (event_fd) machine_->ClearConnection(connection).IgnoreError();
    absl::Status set = machine_->SetConnection(connection, frame.descriptors.front().get());
    if (!set.ok()) {
      connections_.erase(connection);
      return link_.Refuse(frame, LinkError::kRefused, "KVM does not take this connection");
    }
  }
  event_fd = std::move(frame.descriptors.front());
  link_.Reply(frame, {}, {});
}

void SynicLevel::HandleConnClr(const GuestLinkFrame& frame) {
  const auto wire = ParsePayload<hyperv::LinkConnWire>(frame.payload);
  if (!wire) return link_.BreakFor(frame);
  if (connections_.erase(wire->connection.value()) != 0 && machine_ != nullptr) {
    machine_->ClearConnection(wire->connection.value()).IgnoreError();
  }
  link_.Reply(frame, {}, {});
}

void SynicLevel::HandleMsgSend(const GuestLinkFrame& frame) {
  const auto message = ParsePayload<hyperv::LinkMsgSendWire>(frame.payload);
  if (!message || message->size.value() > hyperv::kSynicPayloadBytesMax) {
    return link_.BreakFor(frame);
  }
  hyperv::LinkMsgSendResultWire answer{};
  answer.result = static_cast<uint32_t>(
      DeliverMessage(message->vp.value(), message->sint.value(), message->type.value(),
                     PayloadBytes(message->payload).first(message->size.value())));
  link_.Reply(frame, PayloadBytes(answer), {});
}

void SynicLevel::HandleEventGet(const GuestLinkFrame& frame) {
  const auto get = ParsePayload<hyperv::LinkEventGetWire>(frame.payload);
  if (!get || get->vp.value() >= processors() || get->sint.value() != hyperv::kSynicVmbusSint ||
      get->flag.value() >= hyperv::kSynicEventFlags || events_.size() >= kEventsMax) {
    return link_.Refuse(frame, LinkError::kRefused, "no such event flag");
  }
  hyperv::UniqueFd& event_fd = events_[{get->vp.value(), get->flag.value()}];
  if (!event_fd) event_fd = NewEventFd();
  const std::array descriptors = {event_fd.get()};
  link_.Reply(frame, {}, descriptors);
}

}  // namespace vmbfs::test_vmm
