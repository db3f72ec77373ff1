#include "hyperv/guest/synic_vmm.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

VmmLink::Terms SynicVmm::terms() const {
  return {.level = kLinkLevelSynic,
          .delivery =
              delivery_ == SynicDelivery::kMediated ? kLinkDeliveryMediated : kLinkDeliveryDirect,
          .vp_count = vp_count()};
}

absl::Status SynicVmm::SetSynic(uint32_t vp, const SynicRegisters& registers, Deadline deadline) {
  synic_.SetRegisters(vp, registers);
  LinkSynicWire synic{};
  synic.vp = vp;
  synic.scontrol = registers.scontrol;
  synic.siefp = registers.siefp;
  synic.simp = registers.simp;
  synic.sint2 = registers.sint2;
  return link_.Send(LinkType::kSynic, PayloadBytes(synic), deadline);
}

uint32_t SynicVmm::PostMessage(uint32_t vp, uint32_t connection,
                               std::span<const std::byte> message) {
  if (message.size() > kSynicPayloadBytesMax) return kHypercallInvalidParameter;
  if (connection != kMessageConnection && connection != kMultiClientMessageConnection) {
    return kHypercallInvalidConnectionId;
  }
  link_.Service();
  if (!link_.broken().ok() || posts_sent_ - posts_acknowledged_ >= kLinkPostsMax) {
    return kHypercallInsufficientBuffers;
  }
  LinkPostWire post{};
  post.post_seq = posts_sent_ + 1;
  post.vp = vp;
  post.connection = connection;
  post.type = kSynicMessageType;
  post.size = static_cast<uint32_t>(message.size());
  if (!message.empty()) std::memcpy(&post.payload, message.data(), message.size());
  if (!SendNow(LinkType::kPost, PayloadBytes(post))) return kHypercallInsufficientBuffers;
  ++posts_sent_;
  return kHypercallSuccess;
}

void SynicVmm::SignalEvent(uint32_t connection) {
  auto found = connections_.find(connection);
  if (found == connections_.end()) {
    link_.Service();
    found = connections_.find(connection);
  }
  if (found != connections_.end()) return RingEventFd(found->second.get());
  if (!link_.broken().ok()) return;
  LinkSignalWire signal{};
  signal.connection = connection;
  SendNow(LinkType::kSignal, PayloadBytes(signal));
}

void SynicVmm::EndOfMessage(uint32_t vp) {
  if (delivery_ == SynicDelivery::kDirect) return RingEventFd(ack_fd(vp));
  LinkSintWire eom{};
  eom.vp = vp;
  eom.sint = kSynicVmbusSint;
  SendNow(LinkType::kEom, PayloadBytes(eom));
}

absl::Status SynicVmm::SetRoute(RouteConnection route) {
  route_ = std::move(route);
  absl::Status result;
  for (const auto& [connection, fd] : connections_) {
    if (route_) result.Update(route_(connection, fd.get()));
  }
  return result;
}

std::vector<int> SynicVmm::events() const {
  std::vector<int> fds;
  for (const auto& [event, fd] : events_) fds.push_back(fd.get());
  return fds;
}

void SynicVmm::TakeEvents() {
  for (const auto& [event, fd] : events_) {
    if (TakeEventFd(fd.get())) SetEventFlag(event.vp, event.flag);
  }
}

// Posts that waited are dropped, and get no acknowledgement; no channel is open, so
// that nobody signals.
void SynicVmm::ForgetGuest() {
  posts_acknowledged_ = posts_sent_;
  events_.clear();
}

void SynicVmm::HandleRequest(GuestLinkFrame frame) {
  const bool mediated = delivery_ == SynicDelivery::kMediated;
  switch (frame.type) {
    case LinkType::kPostAck:
      return HandlePostAck(frame);
    case LinkType::kConnSet:
      return HandleConnSet(std::move(frame));
    case LinkType::kConnClr:
      return HandleConnClr(frame);
    case LinkType::kSintGet:
      if (!mediated) return HandleSintGet(frame);
      break;
    case LinkType::kMsgSend:
      if (mediated) return HandleMsgSend(frame);
      break;
    case LinkType::kEventGet:
      if (mediated) return HandleEventGet(frame);
      break;
    default:
      if ((frame.flags & kLinkFlagNeedAck) == 0) return;
      break;
  }
  link_.Refuse(frame, LinkError::kNotSupported, "not known to this VMM");
}

void SynicVmm::HandlePostAck(const GuestLinkFrame& frame) {
  const auto ack = ParsePayload<LinkPostAckWire>(frame.payload);
  if (!ack || ack->post_seq.value() > posts_sent_) return link_.BreakFor(frame);
  posts_acknowledged_ = std::max(posts_acknowledged_, ack->post_seq.value());
}

void SynicVmm::HandleSintGet(const GuestLinkFrame& frame) {
  const auto sint = ParsePayload<LinkSintWire>(frame.payload);
  if (!sint || sint->vp.value() >= vp_count() || sint->sint.value() != kSynicVmbusSint) {
    return link_.Refuse(frame, LinkError::kRefused, "no such interrupt source");
  }
  const std::array lent = {interrupt_fd(sint->vp.value()), ack_fd(sint->vp.value())};
  link_.Reply(frame, {}, lent);
}

void SynicVmm::HandleConnSet(GuestLinkFrame frame) {
  const auto conn = ParsePayload<LinkConnWire>(frame.payload);
  if (!conn || frame.descriptors.size() != 1) {
    return link_.Refuse(frame, LinkError::kProtocol, "CONN_SET has one connection and one eventfd");
  }
  if (connections_.size() >= kConnectionsMax) {
    return link_.Refuse(frame, LinkError::kRefused, "too many connections");
  }
  const uint32_t connection = conn->connection.value();
  UniqueFd& event_fd = connections_[connection];
  if (route_ && event_fd) route_(connection, -1).IgnoreError();
  event_fd = std::move(frame.descriptors.front());
  if (route_) {
    if (absl::Status routed = route_(connection, event_fd.get()); !routed.ok()) {
      connections_.erase(connection);
      return link_.Refuse(frame, LinkError::kRefused, "the VMM has no way for this connection");
    }
  }
  link_.Reply(frame, {}, {});
}

void SynicVmm::HandleConnClr(const GuestLinkFrame& frame) {
  const auto conn = ParsePayload<LinkConnWire>(frame.payload);
  if (!conn) return link_.BreakFor(frame);
  const uint32_t connection = conn->connection.value();
  if (connections_.erase(connection) != 0 && route_) route_(connection, -1).IgnoreError();
  link_.Reply(frame, {}, {});
}

void SynicVmm::HandleMsgSend(const GuestLinkFrame& frame) {
  const auto message = ParsePayload<LinkMsgSendWire>(frame.payload);
  if (!message || message->size.value() > kSynicPayloadBytesMax) return link_.BreakFor(frame);
  const auto payload = PayloadBytes(message->payload).first(message->size.value());
  LinkMsgSendResultWire answer{};
  answer.result = static_cast<uint32_t>(
      Deliver(message->vp.value(), message->sint.value(), message->type.value(), payload));
  link_.Reply(frame, PayloadBytes(answer), {});
}

void SynicVmm::HandleEventGet(const GuestLinkFrame& frame) {
  const auto get = ParsePayload<LinkEventGetWire>(frame.payload);
  if (!get || get->vp.value() >= vp_count() || get->sint.value() != kSynicVmbusSint ||
      get->flag.value() >= kEventFlagsPerSint) {
    return link_.Refuse(frame, LinkError::kRefused, "no such event flag");
  }
  const EventFlag event{.vp = get->vp.value(), .flag = get->flag.value()};
  auto found = events_.find(event);
  if (found == events_.end()) {
    if (events_.size() >= kEventsMax) {
      return link_.Refuse(frame, LinkError::kRefused, "too many event flags");
    }
    found = events_.emplace(event, NewEventFd()).first;
  }
  const std::array lent = {found->second.get()};
  link_.Reply(frame, {}, lent);
}

}  // namespace vmbfs::hyperv
