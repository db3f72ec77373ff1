#include "hyperv/guest/synic_vmm.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <optional>

#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

constexpr uint64_t kEnabled = 1;         // in SCONTROL, SIMP and SIEFP
constexpr uint64_t kSint2Vector = 0x41;  // not masked
constexpr uint64_t kSintMasked = 1 << 16;

UniqueFd NewEventFd() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

}  // namespace

SynicVmm::SynicVmm(GuestLinkSocket socket, const GuestRam& ram,
                   std::span<const SynicPages> processors, SynicDelivery delivery)
    : ram_(ram),
      processors_(processors.begin(), processors.end()),
      delivery_(delivery),
      link_(std::move(socket), [this](GuestLinkFrame frame) { HandleRequest(std::move(frame)); }),
      synic_(ram, processors) {
  if (delivery == SynicDelivery::kMediated) return;
  for (size_t vp = 0; vp < processors_.size(); ++vp) {
    interrupts_.push_back(NewEventFd());
    acks_.push_back(NewEventFd());
  }
}

absl::Status SynicVmm::SayHello(const std::string& label, Deadline deadline) {
  return link_.SayHello({.level = kLinkLevelSynic,
                         .delivery = delivery_ == SynicDelivery::kMediated ? kLinkDeliveryMediated
                                                                           : kLinkDeliveryDirect,
                         .vp_count = static_cast<uint32_t>(processors_.size())},
                        label, deadline);
}

absl::Status SynicVmm::HandOver(Deadline deadline) {
  if (absl::Status added = link_.AddMemory(ram_, deadline); !added.ok()) return added;
  if (absl::Status sent = SendSynics(true, deadline); !sent.ok()) return sent;
  return link_.Send(LinkType::kStart, {}, deadline);
}

absl::Status SynicVmm::SendSynics(bool enabled, Deadline deadline) {
  synic_.SetEnabled(enabled);
  for (uint32_t vp = 0; vp < processors_.size(); ++vp) {
    LinkSynicWire synic{};
    synic.vp = vp;
    synic.sint2 = kSintMasked;
    if (enabled) {
      synic.scontrol = kEnabled;
      synic.simp = processors_[vp].message_page_gpa | kEnabled;
      synic.siefp = processors_[vp].event_flags_page_gpa | kEnabled;
      synic.sint2 = kSint2Vector;
    }
    absl::Status sent = link_.Send(LinkType::kSynic, PayloadBytes(synic), deadline);
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
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
  absl::Status sent = link_.Send(LinkType::kPost, PayloadBytes(post), VmmLink::SendDeadline());
  if (!sent.ok()) {
    link_.Break(sent);
    return kHypercallInsufficientBuffers;
  }
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
  absl::Status sent = link_.Send(LinkType::kSignal, PayloadBytes(signal), VmmLink::SendDeadline());
  if (!sent.ok()) link_.Break(sent);
}

void SynicVmm::EndOfMessage(uint32_t vp) {
  if (delivery_ == SynicDelivery::kDirect) return RingEventFd(acks_[vp].get());
  LinkSintWire eom{};
  eom.vp = vp;
  eom.sint = kSynicVmbusSint;
  absl::Status sent = link_.Send(LinkType::kEom, PayloadBytes(eom), VmmLink::SendDeadline());
  if (!sent.ok()) link_.Break(sent);
}

absl::Status SynicVmm::Wait(Deadline deadline) {
  if (!link_.broken().ok()) return link_.broken();
  const bool interrupted = std::exchange(interrupted_, false);
  if (interrupted) deadline = std::chrono::steady_clock::now();
  std::vector<pollfd> fds = {{.fd = link_.fd(), .events = POLLIN, .revents = 0}};
  for (const UniqueFd& interrupt : interrupts_) {
    fds.push_back({.fd = interrupt.get(), .events = POLLIN, .revents = 0});
  }
  for (const auto& [event, fd] : events_) {
    fds.push_back({.fd = fd.get(), .events = POLLIN, .revents = 0});
  }
  if (!PollUntil(fds, deadline) && !interrupted) {
    return absl::DeadlineExceededError("the server did not answer in time");
  }
  for (size_t index = 1; index < fds.size(); ++index) {
    if (fds[index].revents != 0) DrainEventFd(fds[index].fd);
  }
  // Exactly one of the two sets has members, so an event is at its flag's place.
  size_t index = 1;
  for (const auto& [event, fd] : events_) {
    if (fds[index++].revents != 0) synic_.SetEventFlag(event.vp, event.flag);
  }
  if (fds[0].revents != 0) link_.Service();
  interrupted_ = false;
  return link_.broken();
}

absl::Status SynicVmm::Reset(Deadline deadline) {
  if (absl::Status sent = SendSynics(false, deadline); !sent.ok()) return sent;
  const LinkResetWire reset{};
  absl::Status answered =
      link_.Ask(LinkType::kReset, 0, PayloadBytes(reset), {}, deadline).status();
  if (!answered.ok()) return answered;
  // Posts that waited were dropped, and get no acknowledgement; no channel is
  // open, so that nobody signals.
  posts_acknowledged_ = posts_sent_;
  events_.clear();
  return absl::OkStatus();
}

absl::Status SynicVmm::EnableSynics(Deadline deadline) { return SendSynics(true, deadline); }

absl::Status SynicVmm::Pause(Deadline deadline) {
  return link_.Ask(LinkType::kPause, 0, {}, {}, deadline).status();
}

absl::Status SynicVmm::Resume(Deadline deadline) {
  return link_.Ask(LinkType::kResume, 0, {}, {}, deadline).status();
}

void SynicVmm::HandleRequest(GuestLinkFrame frame) {
  const bool mediated = delivery_ == SynicDelivery::kMediated;
  switch (frame.type) {
    case LinkType::kPostAck:
      return HandlePostAck(frame);
    case LinkType::kConnSet:
      return HandleConnSet(std::move(frame));
    case LinkType::kConnClr:
      if (const auto clear = ParsePayload<LinkConnWire>(frame.payload)) {
        connections_.erase(clear->connection.value());
        return link_.Reply(frame, {}, {});
      }
      return link_.BreakFor(frame);
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
  if (!sint || sint->vp.value() >= processors_.size() || sint->sint.value() != kSynicVmbusSint) {
    return link_.Refuse(frame, LinkError::kRefused, "no such interrupt source");
  }
  const std::array descriptors = {interrupts_[sint->vp.value()].get(),
                                  acks_[sint->vp.value()].get()};
  link_.Reply(frame, {}, descriptors);
}

void SynicVmm::HandleConnSet(GuestLinkFrame frame) {
  const auto conn = ParsePayload<LinkConnWire>(frame.payload);
  if (!conn || frame.descriptors.size() != 1) {
    return link_.Refuse(frame, LinkError::kProtocol, "CONN_SET has one connection and one eventfd");
  }
  if (connections_.size() >= kConnectionsMax) {
    return link_.Refuse(frame, LinkError::kRefused, "too many connections");
  }
  connections_[conn->connection.value()] = std::move(frame.descriptors.front());
  link_.Reply(frame, {}, {});
}

void SynicVmm::HandleMsgSend(const GuestLinkFrame& frame) {
  const auto message = ParsePayload<LinkMsgSendWire>(frame.payload);
  if (!message || message->size.value() > kSynicPayloadBytesMax) return link_.BreakFor(frame);
  const auto payload = PayloadBytes(message->payload).first(message->size.value());
  const LinkMsgResult result =
      synic_.Deliver(message->vp.value(), message->sint.value(), message->type.value(), payload);
  if (result == LinkMsgResult::kDelivered) interrupted_ = true;
  LinkMsgSendResultWire answer{};
  answer.result = static_cast<uint32_t>(result);
  link_.Reply(frame, PayloadBytes(answer), {});
}

void SynicVmm::HandleEventGet(const GuestLinkFrame& frame) {
  const auto get = ParsePayload<LinkEventGetWire>(frame.payload);
  if (!get || get->vp.value() >= processors_.size() || get->sint.value() != kSynicVmbusSint ||
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
  const std::array descriptors = {found->second.get()};
  link_.Reply(frame, {}, descriptors);
}

}  // namespace vmbfs::hyperv
