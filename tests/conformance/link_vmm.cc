#include "tests/conformance/link_vmm.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::conformance {
namespace {

using hyperv::GuestLinkFrame;
using hyperv::LinkType;

constexpr std::chrono::milliseconds kConnectAgain{10};
constexpr std::chrono::seconds kSendPatience{5};
constexpr uint64_t kEnabled = 1;
constexpr uint64_t kSint2Vector = 0x41;
constexpr uint64_t kSintMasked = 1 << 16;

template <typename Payload>
std::span<const std::byte> PayloadBytes(const Payload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

template <typename Payload>
std::optional<Payload> ParsePayload(const GuestLinkFrame& frame) {
  Payload payload;
  if (frame.payload.size() != sizeof(payload)) return std::nullopt;
  std::memcpy(&payload, frame.payload.data(), sizeof(payload));
  return payload;
}

void Ring(int event_fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

absl::Status RefusalOf(const GuestLinkFrame& frame) {
  std::string text;
  hyperv::LinkErrorWire error{};
  if (frame.payload.size() >= sizeof(error)) {
    std::memcpy(&error, frame.payload.data(), sizeof(error));
    text.resize(frame.payload.size() - sizeof(error));
    std::memcpy(text.data(), frame.payload.data() + sizeof(error), text.size());
  }
  const std::string reason = absl::StrCat("link: the server refused: ", text);
  return error.code.value() == static_cast<uint32_t>(hyperv::LinkError::kBusy)
             ? absl::UnavailableError(reason)
             : absl::FailedPreconditionError(reason);
}

}  // namespace

LinkVmm::LinkVmm(hyperv::GuestLinkSocket socket, std::vector<SynicPages> processors)
    : socket_(std::move(socket)), processors_(std::move(processors)) {}

absl::StatusOr<std::unique_ptr<LinkVmm>> LinkVmm::Connect(const std::string& socket_path,
                                                          const hyperv::GuestRam& ram,
                                                          std::vector<SynicPages> processors,
                                                          Deadline deadline) {
  for (;;) {
    auto socket = hyperv::GuestLinkSocket::Connect(socket_path, deadline);
    if (!socket.ok()) return socket.status();
    std::unique_ptr<LinkVmm> vmm(new LinkVmm(*std::move(socket), processors));
    absl::Status started = vmm->Start(ram, deadline);
    if (started.ok()) return vmm;
    // The connection before may not have ended on the other side.
    if (!absl::IsUnavailable(started) || std::chrono::steady_clock::now() >= deadline) {
      return started;
    }
    std::this_thread::sleep_for(kConnectAgain);
  }
}

absl::Status LinkVmm::Start(const hyperv::GuestRam& ram, Deadline deadline) {
  hyperv::LinkHelloWire hello{};
  hello.major = hyperv::kLinkMajor;
  hello.minor = hyperv::kLinkMinor;
  hello.level = hyperv::kLinkLevelSynic;
  hello.vp_count = static_cast<uint32_t>(processors_.size());
  hello.delivery_modes = hyperv::kLinkDeliveryDirect;
  absl::Status status = Ask(LinkType::kHello, 0, PayloadBytes(hello), {}, deadline);
  if (!status.ok()) return status;
  hyperv::LinkMemAddWire region{};
  region.id = 1;
  region.bytes = ram.bytes().size();
  const std::array descriptors = {ram.fd()};
  status =
      Ask(LinkType::kMemAdd, hyperv::kLinkFlagNeedAck, PayloadBytes(region), descriptors, deadline);
  if (!status.ok()) return status;
  if (status = SendSynics(true); !status.ok()) return status;
  return Send(LinkType::kStart, 0, {});
}

absl::Status LinkVmm::SendSynics(bool enabled) {
  for (uint32_t vp = 0; vp < processors_.size(); ++vp) {
    hyperv::LinkSynicWire synic{};
    synic.vp = vp;
    synic.sint2 = kSintMasked;
    if (enabled) {
      synic.scontrol = kEnabled;
      synic.simp = processors_[vp].message_page_gpa | kEnabled;
      synic.siefp = processors_[vp].event_flags_page_gpa | kEnabled;
      synic.sint2 = kSint2Vector;
    }
    absl::Status sent = Send(LinkType::kSynic, 0, PayloadBytes(synic));
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

absl::Status LinkVmm::Send(LinkType type, uint16_t flags, std::span<const std::byte> payload,
                           std::span<const int> descriptors) {
  return socket_.Send(type, flags, next_seq_++, payload, descriptors,
                      std::chrono::steady_clock::now() + kSendPatience);
}

absl::Status LinkVmm::Ask(LinkType type, uint16_t flags, std::span<const std::byte> payload,
                          std::span<const int> descriptors, Deadline deadline) {
  answer_.reset();
  absl::Status status = Send(type, flags, payload, descriptors);
  while (status.ok() && !answer_) status = Wait(deadline);
  // A server that refuses at once may have closed before we wrote.
  if (!status.ok() && !answer_) status.Update(ReceiveFrames());
  if (!answer_) return status;
  return answer_->error() ? RefusalOf(*answer_) : absl::OkStatus();
}

bool LinkVmm::Post(uint32_t connection, std::span<const std::byte> message) {
  if (posts_on_their_way() >= hyperv::kLinkPostsMax) return false;
  hyperv::LinkPostWire post{};
  post.post_seq = ++posts_sent_;
  post.connection = connection;
  post.type = hyperv::kSynicVmbusMessageType;
  post.size = static_cast<uint32_t>(message.size());
  if (!message.empty()) std::memcpy(&post.payload, message.data(), message.size());
  return Send(LinkType::kPost, 0, PayloadBytes(post)).ok();
}

void LinkVmm::Signal(uint32_t connection) {
  const auto found = connections_.find(connection);
  if (found == connections_.end()) return SignalByFrame(connection);
  Ring(found->second.get());
}

void LinkVmm::SignalByFrame(uint32_t connection) {
  hyperv::LinkSignalWire signal{};
  signal.connection = connection;
  // A broken link is told by the next Wait.
  Send(LinkType::kSignal, 0, PayloadBytes(signal)).IgnoreError();
}

void LinkVmm::EndOfMessage(uint32_t vp, uint32_t sint) {
  if (const auto found = sources_.find({vp, sint}); found != sources_.end()) {
    Ring(found->second.ack.get());
  }
}

absl::Status LinkVmm::Wait(Deadline deadline) {
  std::vector<pollfd> fds = {{.fd = socket_.fd(), .events = POLLIN, .revents = 0}};
  for (const auto& [key, source] : sources_) {
    fds.push_back({.fd = source.interrupt.get(), .events = POLLIN, .revents = 0});
  }
  if (!hyperv::PollUntil(fds, deadline)) {
    return absl::DeadlineExceededError("the server did not answer in time");
  }
  for (auto& [key, source] : sources_) {
    uint64_t count = 0;
    if (read(source.interrupt.get(), &count, sizeof(count)) == sizeof(count)) {
      source.interrupts += count;
    }
  }
  return fds[0].revents != 0 ? ReceiveFrames() : absl::OkStatus();
}

absl::Status LinkVmm::Reset(Deadline deadline) {
  if (absl::Status sent = SendSynics(false); !sent.ok()) return sent;
  const hyperv::LinkResetWire reset{};
  absl::Status answered = Ask(LinkType::kReset, 0, PayloadBytes(reset), {}, deadline);
  // Posts that waited were dropped, and get no acknowledgement.
  if (answered.ok()) posts_acknowledged_ = posts_sent_;
  return answered;
}

uint64_t LinkVmm::interrupts(uint32_t vp, uint32_t sint) const {
  const auto found = sources_.find({vp, sint});
  return found == sources_.end() ? 0 : found->second.interrupts;
}

std::optional<pid_t> LinkVmm::server_process() const {
  ucred peer{};
  socklen_t bytes = sizeof(peer);
  if (getsockopt(socket_.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || peer.pid == 0) {
    return std::nullopt;
  }
  return peer.pid;
}

absl::Status LinkVmm::ReceiveFrames() {
  for (;;) {
    auto frame = socket_.Receive();
    if (!frame.ok()) return frame.status();
    if (!*frame) return absl::OkStatus();
    if (absl::Status handled = Handle(**std::move(frame)); !handled.ok()) return handled;
  }
}

absl::Status LinkVmm::Handle(GuestLinkFrame frame) {
  if (frame.reply()) {
    const bool farewell = frame.error() && frame.seq == 0;
    absl::Status status = farewell ? RefusalOf(frame) : absl::OkStatus();
    answer_ = std::move(frame);
    return status;
  }
  const auto reply = [&] {
    return socket_.Send(frame.type, hyperv::kLinkFlagReply, frame.seq, {}, {},
                        std::chrono::steady_clock::now() + kSendPatience);
  };
  switch (frame.type) {
    case LinkType::kSintGet:
      return LendSource(frame);
    case LinkType::kConnSet:
      if (const auto conn = ParsePayload<hyperv::LinkConnWire>(frame);
          conn && frame.descriptors.size() == 1) {
        connections_[conn->connection.value()] = std::move(frame.descriptors.front());
        return reply();
      }
      break;
    case LinkType::kConnClr:
      if (const auto conn = ParsePayload<hyperv::LinkConnWire>(frame)) {
        connections_.erase(conn->connection.value());
        return reply();
      }
      break;
    case LinkType::kPostAck:
      if (const auto ack = ParsePayload<hyperv::LinkPostAckWire>(frame);
          ack && ack->post_seq.value() <= posts_sent_) {
        posts_acknowledged_ = ack->post_seq.value();
        return absl::OkStatus();
      }
      break;
    default:
      break;
  }
  return absl::InternalError(absl::StrCat("link: a frame of type ",
                                          static_cast<uint32_t>(frame.type), " with ",
                                          frame.payload.size(), " bytes"));
}

absl::Status LinkVmm::LendSource(const GuestLinkFrame& frame) {
  const auto wanted = ParsePayload<hyperv::LinkSintWire>(frame);
  if (!wanted || wanted->vp.value() >= processors_.size() ||
      wanted->sint.value() >= hyperv::kLinkSints) {
    return absl::InternalError("link: SINT_GET of a source that does not exist");
  }
  Source& source = sources_[{wanted->vp.value(), wanted->sint.value()}];
  for (hyperv::UniqueFd* fd : {&source.interrupt, &source.ack}) {
    if (!*fd) fd->reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!*fd) return absl::ErrnoToStatus(errno, "eventfd");
  }
  const std::array descriptors = {source.interrupt.get(), source.ack.get()};
  return socket_.Send(frame.type, hyperv::kLinkFlagReply, frame.seq, {}, descriptors,
                      std::chrono::steady_clock::now() + kSendPatience);
}

}  // namespace vmbfs::conformance
