#include "hyperv/guest/guest_vmm.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::chrono::milliseconds kHelloAgain{20};
// How long a frame may wait for room in the socket where no caller says.
constexpr std::chrono::seconds kSendPatience{5};
constexpr uint64_t kEnabled = 1;         // in SCONTROL, SIMP and SIEFP
constexpr uint64_t kSint2Vector = 0x41;  // not masked
constexpr uint64_t kSintMasked = 1 << 16;
constexpr uint32_t kRamRegion = 1;

template <typename Payload>
std::span<const std::byte> PayloadBytes(const Payload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

// A payload of exactly this layout.
template <typename Payload>
std::optional<Payload> ParsePayload(const GuestLinkFrame& frame) {
  Payload payload;
  if (frame.payload.size() != sizeof(payload)) return std::nullopt;
  std::memcpy(&payload, frame.payload.data(), sizeof(payload));
  return payload;
}

struct Refusal {
  LinkError code{};
  std::string text;
};

Refusal ParseRefusal(const GuestLinkFrame& frame) {
  LinkErrorWire error{};
  if (frame.payload.size() < sizeof(error)) return {LinkError::kProtocol, "no reason was given"};
  std::memcpy(&error, frame.payload.data(), sizeof(error));
  std::string text(frame.payload.size() - sizeof(error), '\0');
  std::memcpy(text.data(), frame.payload.data() + sizeof(error), text.size());
  return {static_cast<LinkError>(error.code.value()), std::move(text)};
}

Deadline SendDeadline() { return std::chrono::steady_clock::now() + kSendPatience; }

void Ring(int event_fd) {
  const uint64_t one = 1;
  // A full counter is a signal that stands already.
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

}  // namespace

GuestVmm::GuestVmm(GuestLinkSocket socket, std::span<const SynicPages> processors)
    : socket_(std::move(socket)), processors_(processors.begin(), processors.end()) {}

absl::StatusOr<std::unique_ptr<GuestVmm>> GuestVmm::Connect(const std::string& socket_path,
                                                            const std::string& label,
                                                            const GuestRam& ram,
                                                            std::span<const SynicPages> processors,
                                                            Deadline deadline) {
  for (;;) {
    absl::StatusOr<GuestLinkSocket> socket = GuestLinkSocket::Connect(socket_path, deadline);
    if (!socket.ok()) return socket.status();
    std::unique_ptr<GuestVmm> vmm(new GuestVmm(*std::move(socket), processors));
    if (absl::Status created = vmm->CreateEventFds(); !created.ok()) return created;
    const absl::Status hello = vmm->SayHello(label, deadline);
    if (hello.ok()) {
      if (absl::Status added = vmm->AddMemory(ram, deadline); !added.ok()) return added;
      if (absl::Status sent = vmm->SendSynics(true, deadline); !sent.ok()) return sent;
      absl::Status started =
          vmm->socket_.Send(LinkType::kStart, 0, vmm->next_seq_++, {}, {}, deadline);
      if (!started.ok()) return started;
      return vmm;
    }
    // The backlog of a server that ends, or a VMM before us that is not gone yet.
    if (!absl::IsUnavailable(hello) || std::chrono::steady_clock::now() + kHelloAgain >= deadline) {
      return hello;
    }
    std::this_thread::sleep_for(kHelloAgain);
  }
}

absl::Status GuestVmm::CreateEventFds() {
  for (size_t vp = 0; vp < processors_.size(); ++vp) {
    for (std::vector<UniqueFd>* fds : {&interrupts_, &acks_}) {
      fds->emplace_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      if (!fds->back()) return absl::ErrnoToStatus(errno, "eventfd");
    }
  }
  return absl::OkStatus();
}

absl::Status GuestVmm::SayHello(const std::string& label, Deadline deadline) {
  LinkHelloWire hello{};
  hello.major = kLinkMajor;
  hello.minor = kLinkMinor;
  hello.level = kLinkLevelSynic;
  hello.vp_count = static_cast<uint32_t>(processors_.size());
  hello.delivery_modes = kLinkDeliveryDirect;
  const std::string_view sent_label = std::string_view(label).substr(0, kLinkLabelBytesMax);
  hello.label_length = static_cast<uint32_t>(sent_label.size());
  std::vector<std::byte> payload(sizeof(hello) + sent_label.size());
  std::memcpy(payload.data(), &hello, sizeof(hello));
  sent_label.copy(reinterpret_cast<char*>(&payload[0]) + sizeof(hello), sent_label.size());

  absl::StatusOr<GuestLinkFrame> answer = Ask(LinkType::kHello, 0, payload, {}, deadline);
  if (!answer.ok()) return answer.status();
  const std::optional<LinkHelloOkWire> ok = ParsePayload<LinkHelloOkWire>(*answer);
  if (!ok || ok->major.value() != kLinkMajor || ok->level.value() != kLinkLevelSynic ||
      ok->delivery_mode.value() != kLinkDeliveryDirect) {
    return absl::FailedPreconditionError("link: the server's HELLO_OK is not of version 1");
  }
  return absl::OkStatus();
}

absl::Status GuestVmm::AddMemory(const GuestRam& ram, Deadline deadline) {
  LinkMemAddWire region{};
  region.id = kRamRegion;
  region.bytes = ram.bytes().size();
  const std::array descriptors = {ram.fd()};
  return Ask(LinkType::kMemAdd, kLinkFlagNeedAck, PayloadBytes(region), descriptors, deadline)
      .status();
}

absl::Status GuestVmm::SendSynics(bool enabled, Deadline deadline) {
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
    if (absl::Status sent = Send(LinkType::kSynic, synic, deadline); !sent.ok()) return sent;
  }
  return absl::OkStatus();
}

template <typename Payload>
absl::Status GuestVmm::Send(LinkType type, const Payload& payload, Deadline deadline) {
  return socket_.Send(type, 0, next_seq_++, PayloadBytes(payload), {}, deadline);
}

// Sends a request and waits for its reply. A refusal is kFailedPrecondition,
// or kUnavailable while the server serves another VMM.
absl::StatusOr<GuestLinkFrame> GuestVmm::Ask(LinkType type, uint16_t flags,
                                             std::span<const std::byte> payload,
                                             std::span<const int> descriptors, Deadline deadline) {
  if (!broken_.ok()) return broken_;
  const uint64_t seq = next_seq_++;
  awaited_seq_ = seq;
  answer_.reset();
  absl::Status sent = socket_.Send(type, flags, seq, payload, descriptors, deadline);
  while (sent.ok() && !answer_) sent = Wait(deadline);
  // A server that refuses at once may have closed before we wrote; its reason
  // is still there to be read.
  if (absl::IsUnavailable(sent)) ServiceSocket();
  awaited_seq_.reset();
  if (!answer_) return broken_.ok() ? sent : broken_;
  if (!answer_->error()) return *std::exchange(answer_, std::nullopt);
  return absl::FailedPreconditionError(
      absl::StrCat("link: the server refused: ", ParseRefusal(*answer_).text));
}

uint32_t GuestVmm::PostMessage(uint32_t vp, uint32_t connection,
                               std::span<const std::byte> message) {
  if (message.size() > kSynicPayloadBytesMax) return kHypercallInvalidParameter;
  if (connection != kMessageConnection && connection != kMultiClientMessageConnection) {
    return kHypercallInvalidConnectionId;
  }
  ServiceSocket();
  if (!broken_.ok() || posts_sent_ - posts_acknowledged_ >= kLinkPostsMax) {
    return kHypercallInsufficientBuffers;
  }
  LinkPostWire post{};
  post.post_seq = posts_sent_ + 1;
  post.vp = vp;
  post.connection = connection;
  post.type = kSynicMessageType;
  post.size = static_cast<uint32_t>(message.size());
  if (!message.empty()) std::memcpy(&post.payload, message.data(), message.size());
  if (absl::Status sent = Send(LinkType::kPost, post, SendDeadline()); !sent.ok()) {
    Break(sent);
    return kHypercallInsufficientBuffers;
  }
  ++posts_sent_;
  return kHypercallSuccess;
}

void GuestVmm::SignalEvent(uint32_t connection) {
  auto found = connections_.find(connection);
  if (found == connections_.end()) {
    ServiceSocket();
    found = connections_.find(connection);
  }
  if (found != connections_.end()) {
    Ring(found->second.get());
    return;
  }
  if (!broken_.ok()) return;
  LinkSignalWire signal{};
  signal.connection = connection;
  if (absl::Status sent = Send(LinkType::kSignal, signal, SendDeadline()); !sent.ok()) Break(sent);
}

void GuestVmm::EndOfMessage(uint32_t vp) { Ring(acks_[vp].get()); }

absl::Status GuestVmm::Wait(Deadline deadline) {
  if (!broken_.ok()) return broken_;
  std::vector<pollfd> fds = {{.fd = socket_.fd(), .events = POLLIN, .revents = 0}};
  for (const UniqueFd& interrupt : interrupts_) {
    fds.push_back({.fd = interrupt.get(), .events = POLLIN, .revents = 0});
  }
  if (!PollUntil(fds, deadline)) {
    return absl::DeadlineExceededError("the server did not answer in time");
  }
  for (size_t index = 1; index < fds.size(); ++index) {
    uint64_t count = 0;
    if (fds[index].revents != 0 && read(fds[index].fd, &count, sizeof(count)) < 0 &&
        errno != EAGAIN && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "reading an interrupt");
    }
  }
  if (fds[0].revents != 0) ServiceSocket();
  return broken_;
}

absl::Status GuestVmm::Reset(Deadline deadline) {
  if (absl::Status sent = SendSynics(false, deadline); !sent.ok()) return sent;
  const LinkResetWire reset{};
  absl::Status answered = Ask(LinkType::kReset, 0, PayloadBytes(reset), {}, deadline).status();
  // Posts that waited were dropped, and get no acknowledgement.
  if (answered.ok()) posts_acknowledged_ = posts_sent_;
  return answered;
}

absl::Status GuestVmm::EnableSynics(Deadline deadline) { return SendSynics(true, deadline); }

void GuestVmm::ServiceSocket() {
  while (broken_.ok()) {
    absl::StatusOr<std::optional<GuestLinkFrame>> frame = socket_.Receive();
    if (!frame.ok()) return Break(frame.status());
    if (!*frame) return;
    Handle(**std::move(frame));
  }
}

void GuestVmm::Handle(GuestLinkFrame frame) {
  if (!frame.reply()) return HandleRequest(std::move(frame));
  if (awaited_seq_ && frame.seq == *awaited_seq_) {
    answer_ = std::move(frame);
    return;
  }
  if (!frame.error()) return Break(absl::UnavailableError("link: a reply nobody asked for"));
  const Refusal refusal = ParseRefusal(frame);
  const std::string text = absl::StrCat("link: the server ended the connection: ", refusal.text);
  Break(refusal.code == LinkError::kNotPermitted ? absl::FailedPreconditionError(text)
                                                 : absl::UnavailableError(text));
}

void GuestVmm::HandleRequest(GuestLinkFrame frame) {
  switch (frame.type) {
    case LinkType::kSintGet:
      return HandleSintGet(frame);
    case LinkType::kConnSet:
      return HandleConnSet(std::move(frame));
    case LinkType::kConnClr:
      if (const auto clear = ParsePayload<LinkConnWire>(frame)) {
        connections_.erase(clear->connection.value());
        return Reply(frame, {});
      }
      break;
    case LinkType::kPostAck:
      if (const auto ack = ParsePayload<LinkPostAckWire>(frame);
          ack && ack->post_seq.value() <= posts_sent_) {
        posts_acknowledged_ = std::max(posts_acknowledged_, ack->post_seq.value());
        return;
      }
      break;
    default:
      if ((frame.flags & kLinkFlagNeedAck) != 0) {
        Refuse(frame, LinkError::kNotSupported, "not known to this VMM");
      }
      return;
  }
  Break(absl::UnavailableError(
      absl::StrCat("link: malformed frame of type ", static_cast<uint32_t>(frame.type))));
}

void GuestVmm::HandleSintGet(const GuestLinkFrame& frame) {
  const std::optional<LinkSintWire> sint = ParsePayload<LinkSintWire>(frame);
  if (!sint || sint->vp.value() >= processors_.size() || sint->sint.value() != kSynicVmbusSint) {
    return Refuse(frame, LinkError::kRefused, "no such interrupt source");
  }
  const std::array descriptors = {interrupts_[sint->vp.value()].get(),
                                  acks_[sint->vp.value()].get()};
  Reply(frame, descriptors);
}

void GuestVmm::HandleConnSet(GuestLinkFrame frame) {
  const std::optional<LinkConnWire> conn = ParsePayload<LinkConnWire>(frame);
  if (!conn || frame.descriptors.size() != 1) {
    return Refuse(frame, LinkError::kProtocol, "CONN_SET has one connection and one eventfd");
  }
  if (connections_.size() >= kConnectionsMax) {
    return Refuse(frame, LinkError::kRefused, "too many connections");
  }
  connections_[conn->connection.value()] = std::move(frame.descriptors.front());
  Reply(frame, {});
}

void GuestVmm::Reply(const GuestLinkFrame& request, std::span<const int> descriptors) {
  absl::Status sent =
      socket_.Send(request.type, kLinkFlagReply, request.seq, {}, descriptors, SendDeadline());
  if (!sent.ok()) Break(sent);
}

void GuestVmm::Refuse(const GuestLinkFrame& request, LinkError code, std::string_view text) {
  LinkErrorWire error{};
  error.code = static_cast<uint32_t>(code);
  error.text_length = static_cast<uint32_t>(text.size());
  std::vector<std::byte> payload(sizeof(error) + text.size());
  std::memcpy(payload.data(), &error, sizeof(error));
  std::memcpy(&payload[sizeof(error)], text.data(), text.size());
  absl::Status sent = socket_.Send(request.type, kLinkFlagReply | kLinkFlagError, request.seq,
                                   payload, {}, SendDeadline());
  if (!sent.ok()) Break(sent);
}

void GuestVmm::Break(const absl::Status& reason) {
  if (broken_.ok()) broken_ = reason;
}

}  // namespace vmbfs::hyperv
