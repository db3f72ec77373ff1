#include "hyperv/guest/vmm_link.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// How long a frame may wait for room in the socket where no caller says.
constexpr std::chrono::seconds kSendPatience{5};
constexpr uint32_t kRamRegion = 1;

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

}  // namespace

UniqueFd NewEventFd() { return UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

void RingEventFd(int event_fd) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
}

bool TakeEventFd(int event_fd) {
  uint64_t count = 0;
  return read(event_fd, &count, sizeof(count)) == sizeof(count);
}

Deadline VmmLink::SendDeadline() { return std::chrono::steady_clock::now() + kSendPatience; }

void VmmLink::Break(const absl::Status& reason) {
  if (broken_.ok()) broken_ = reason;
}

void VmmLink::BreakFor(const GuestLinkFrame& malformed) {
  Break(absl::UnavailableError(
      absl::StrCat("link: malformed frame of type ", static_cast<uint32_t>(malformed.type))));
}

absl::Status VmmLink::SayHello(const Terms& terms, const std::string& label, Deadline deadline) {
  LinkHelloWire hello{};
  hello.major = kLinkMajor;
  hello.minor = kLinkMinor;
  hello.level = terms.level;
  hello.vp_count = terms.vp_count;
  hello.delivery_modes = terms.delivery;
  const std::string_view sent_label = std::string_view(label).substr(0, kLinkLabelBytesMax);
  hello.label_length = static_cast<uint32_t>(sent_label.size());
  std::vector<std::byte> payload(sizeof(hello) + sent_label.size());
  std::memcpy(payload.data(), &hello, sizeof(hello));
  sent_label.copy(reinterpret_cast<char*>(&payload[0]) + sizeof(hello), sent_label.size());

  Answer answer = Ask(LinkType::kHello, 0, payload, {}, deadline);
  if (!answer.ok()) return answer.status();
  const std::optional<LinkHelloOkWire> ok = ParsePayload<LinkHelloOkWire>(*answer);
  if (!ok || ok->major.value() != kLinkMajor || ok->level.value() != terms.level ||
      ok->delivery_mode.value() != terms.delivery) {
    return absl::FailedPreconditionError("link: the server's HELLO_OK is not to our HELLO");
  }
  return absl::OkStatus();
}

absl::Status VmmLink::AddMemory(const GuestRam& ram, Deadline deadline) {
  LinkMemAddWire region{};
  region.id = kRamRegion;
  region.bytes = ram.bytes().size();
  const std::array descriptors = {ram.fd()};
  return Ask(LinkType::kMemAdd, kLinkFlagNeedAck, PayloadBytes(region), descriptors, deadline)
      .status();
}

absl::Status VmmLink::Send(LinkType type, std::span<const std::byte> payload, Deadline deadline) {
  return socket_.Send(type, 0, next_seq_++, payload, {}, deadline);
}

void VmmLink::Request(LinkType type, std::span<const std::byte> payload,
                      std::span<const int> descriptors, OnAnswer on_answer) {
  if (!broken_.ok()) return;
  const uint64_t seq = next_seq_++;
  awaited_[seq] = std::move(on_answer);
  absl::Status sent = socket_.Send(type, 0, seq, payload, descriptors, SendDeadline());
  if (!sent.ok()) Break(sent);
}

VmmLink::Answer VmmLink::Ask(LinkType type, uint16_t flags, std::span<const std::byte> payload,
                             std::span<const int> descriptors, Deadline deadline) {
  if (!broken_.ok()) return broken_;
  const uint64_t seq = next_seq_++;
  std::optional<Answer> answer;
  awaited_[seq] = [&](Answer payload_or_refusal) { answer = std::move(payload_or_refusal); };
  absl::Status sent = socket_.Send(type, flags, seq, payload, descriptors, deadline);
  while (sent.ok() && broken_.ok() && !answer) {
    pollfd readable{.fd = socket_.fd(), .events = POLLIN, .revents = 0};
    if (!PollUntil({&readable, 1}, deadline)) {
      sent = absl::DeadlineExceededError("the server did not answer in time");
    }
    Service();
  }
  // A server that refuses at once may have closed before we wrote; its reason
  // is still there to be read.
  if (absl::IsUnavailable(sent)) Service();
  awaited_.erase(seq);
  if (answer) return *std::move(answer);
  return broken_.ok() ? sent : broken_;
}

void VmmLink::Reply(const GuestLinkFrame& request, std::span<const std::byte> payload,
                    std::span<const int> descriptors) {
  absl::Status sent =
      socket_.Send(request.type, kLinkFlagReply, request.seq, payload, descriptors, SendDeadline());
  if (!sent.ok()) Break(sent);
}

void VmmLink::Refuse(const GuestLinkFrame& request, LinkError code, std::string_view text) {
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

void VmmLink::Service() {
  while (broken_.ok()) {
    absl::StatusOr<std::optional<GuestLinkFrame>> frame = socket_.Receive();
    if (!frame.ok()) return Break(frame.status());
    if (!*frame) return;
    if ((*frame)->reply()) {
      HandleReply(**std::move(frame));
    } else {
      on_request_(**std::move(frame));
    }
  }
}

void VmmLink::HandleReply(GuestLinkFrame frame) {
  const auto found = awaited_.find(frame.seq);
  if (found == awaited_.end()) {
    // An ERROR to the connection as a whole, or to a frame that is not answered.
    if (!frame.error()) return Break(absl::UnavailableError("link: a reply nobody asked for"));
    const Refusal refusal = ParseRefusal(frame);
    const std::string text = absl::StrCat("link: the server ended the connection: ", refusal.text);
    return Break(refusal.code == LinkError::kNotPermitted ? absl::FailedPreconditionError(text)
                                                          : absl::UnavailableError(text));
  }
  const OnAnswer on_answer = std::move(found->second);
  awaited_.erase(found);
  if (!frame.error()) return on_answer(std::move(frame.payload));
  on_answer(absl::FailedPreconditionError(
      absl::StrCat("link: the server refused: ", ParseRefusal(frame).text)));
}

}  // namespace vmbfs::hyperv
