// The VMM's part of HostileVm: frames and descriptors.

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "hyperv/guest_memory/guest_memory.h"
#include "tests/limits/hostile_vm.h"

namespace vmbfs {

using hyperv::GuestLinkFrame;
using hyperv::LinkType;

namespace {

constexpr std::chrono::seconds kPatience{60};
constexpr uint64_t kRamPages = 24'576;
constexpr uint64_t kMessagePage = 1;  // of processor 0; the others' follow
constexpr uint64_t kEventFlagsPage = kMessagePage + HostileVm::kProcessors;  // of all

hyperv::Deadline Later() { return std::chrono::steady_clock::now() + kPatience; }

template <typename Payload>
std::span<const std::byte> BytesOf(const Payload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

template <typename Payload>
Payload PayloadOf(const GuestLinkFrame& frame) {
  Payload payload{};
  std::memcpy(&payload, frame.payload.data(), std::min(sizeof(payload), frame.payload.size()));
  return payload;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostileVm>> HostileVm::Connect(const std::string& socket_path) {
  absl::StatusOr<hyperv::GuestLinkSocket> socket =
      hyperv::GuestLinkSocket::Connect(socket_path, Later());
  if (!socket.ok()) return socket.status();
  absl::StatusOr<std::unique_ptr<hyperv::GuestRam>> ram =
      hyperv::GuestRam::Create(kRamPages * hyperv::kPageBytes);
  if (!ram.ok()) return ram.status();
  std::unique_ptr<HostileVm> vm(new HostileVm(*std::move(socket), *std::move(ram)));
  if (absl::Status status = vm->SetUp(); !status.ok()) return status;
  return vm;
}

HostileVm::HostileVm(hyperv::GuestLinkSocket socket, std::unique_ptr<hyperv::GuestRam> ram)
    : socket_(std::move(socket)),
      ram_(std::move(ram)),
      synic_(ram_->Page(kMessagePage), ram_->Page(kEventFlagsPage)),
      interrupt_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      end_of_message_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      other_interrupts_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  // What is mapped here too is not private to the server.
  std::memset(ram_->bytes().data(), 0, ram_->bytes().size());
}

absl::Status HostileVm::SetUp() {
  hyperv::LinkHelloWire hello{};
  hello.major = hyperv::kLinkMajor;
  hello.level = hyperv::kLinkLevelSynic;
  hello.vp_count = kProcessors;
  hello.delivery_modes = hyperv::kLinkDeliveryDirect;
  const absl::StatusOr<bool> welcome = Ask(LinkType::kHello, BytesOf(hello));
  if (!welcome.ok() || !*welcome) return absl::UnavailableError("HELLO was refused");

  hyperv::LinkMemAddWire region{};
  region.id = 1;
  region.bytes = ram_->bytes().size();
  const std::array descriptors = {ram_->fd()};
  const absl::StatusOr<bool> added = Ask(LinkType::kMemAdd, BytesOf(region), descriptors);
  if (!added.ok() || !*added) return absl::UnavailableError("the RAM was refused");

  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    hyperv::LinkSynicWire state{};
    state.vp = vp;
    state.scontrol = 1;
    state.simp = (kMessagePage + vp) * hyperv::kPageBytes | 1;
    state.siefp = kEventFlagsPage * hyperv::kPageBytes | 1;
    state.sint2 = 0x41;
    if (absl::Status status = Send(LinkType::kSynic, BytesOf(state)); !status.ok()) return status;
  }
  return Send(LinkType::kStart, {});
}

absl::Status HostileVm::Send(LinkType type, std::span<const std::byte> payload, uint16_t flags,
                             std::span<const int> descriptors) {
  return socket_.Send(type, flags, next_seq_++, payload, descriptors, Later());
}

absl::StatusOr<bool> HostileVm::Ask(LinkType type, std::span<const std::byte> payload,
                                    std::span<const int> descriptors) {
  const uint64_t seq = next_seq_;
  const uint16_t flags = type == LinkType::kMemAdd ? hyperv::kLinkFlagNeedAck : 0;
  absl::Status status = Send(type, payload, flags, descriptors);
  if (status.ok()) status = PumpUntil([&] { return replies_.contains(seq); });
  if (!status.ok()) return status;
  return replies_.extract(seq).mapped();
}

absl::Status HostileVm::PumpUntil(const std::function<bool()>& condition) {
  const hyperv::Deadline deadline = Later();
  for (;;) {
    if (absl::Status status = Pump(); !status.ok()) return status;
    if (condition()) return absl::OkStatus();
    std::array<pollfd, 2> fds = {{{.fd = socket_.fd(), .events = POLLIN, .revents = 0},
                                  {.fd = interrupt_.get(), .events = POLLIN, .revents = 0}}};
    if (!hyperv::PollUntil(fds, deadline)) {
      return absl::DeadlineExceededError("the server did not do what was waited for");
    }
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t bytes = read(interrupt_.get(), &count, sizeof(count));
  }
}

// Handles all that has come, without waiting.
absl::Status HostileVm::Pump() {
  for (;;) {
    absl::StatusOr<std::optional<GuestLinkFrame>> frame = socket_.Receive();
    if (!frame.ok()) return frame.status();
    if (!*frame) break;
    if (absl::Status status = Handle(**std::move(frame)); !status.ok()) return status;
  }
  return take_messages_ ? TakeMessages() : absl::OkStatus();
}

absl::Status HostileVm::Handle(GuestLinkFrame frame) {
  if (frame.reply()) {
    replies_[frame.seq] = !frame.error();
    return absl::OkStatus();
  }
  if (frame.type == LinkType::kPostAck) {
    posts_acknowledged_ = PayloadOf<hyperv::LinkPostAckWire>(frame).post_seq.value();
    return absl::OkStatus();
  }
  if (!answer_) return absl::OkStatus();
  const uint32_t connection = PayloadOf<hyperv::LinkConnWire>(frame).connection.value();
  switch (frame.type) {
    case LinkType::kSintGet:
      return HandleSintGet(frame);
    case LinkType::kConnSet:
      if (frame.descriptors.empty()) return absl::InternalError("CONN_SET without a descriptor");
      doorbells_[connection] = std::move(frame.descriptors.front());
      return Reply(frame);
    case LinkType::kConnClr:
      doorbells_.erase(connection);
      return Reply(frame);
    default:
      return absl::InternalError("the server sent a frame of another type");
  }
}

absl::Status HostileVm::HandleSintGet(const GuestLinkFrame& frame) {
  const auto source = PayloadOf<hyperv::LinkSintWire>(frame);
  const uint32_t vp = source.vp.value();
  if (withheld_processor_ != 0 && vp >= withheld_processor_) return absl::OkStatus();
  if (vp == 0 && source.sint.value() == hyperv::kVmbusSint) {
    return Reply(frame, std::array{interrupt_.get(), end_of_message_.get()});
  }
  return Reply(frame, std::array{other_interrupts_.get(), other_interrupts_.get()});
}

absl::Status HostileVm::Reply(const GuestLinkFrame& request, std::span<const int> descriptors) {
  return socket_.Send(request.type, hyperv::kLinkFlagReply, request.seq, {}, descriptors, Later());
}

absl::StatusOr<size_t> HostileVm::AddRegions() {
  constexpr uint64_t kBehindRam = uint64_t{1} << 40;
  const std::array descriptors = {ram_->fd()};
  for (uint32_t id = 2;; ++id) {
    hyperv::LinkMemAddWire region{};
    region.id = id;
    region.gpa = kBehindRam + id * hyperv::kPageBytes;
    region.bytes = hyperv::kPageBytes;
    const absl::StatusOr<bool> added = Ask(LinkType::kMemAdd, BytesOf(region), descriptors);
    if (!added.ok()) return added.status();
    if (!*added) return id - 1;
  }
}

absl::Status HostileVm::FloodEvents(uint32_t channel_id, size_t count) {
  const auto doorbell = doorbells_.find(offered_[channel_id]);
  if (doorbell == doorbells_.end()) return absl::NotFoundError("the channel has no doorbell");
  hyperv::LinkSignalWire signal{};
  signal.connection = offered_[channel_id];
  for (size_t i = 0; i < count; ++i) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t bytes = write(doorbell->second.get(), &one, sizeof(one));
    if (absl::Status status = Send(LinkType::kSignal, BytesOf(signal)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status HostileVm::ReadNothing() {
  hyperv::LinkMemDelWire unknown{};
  unknown.id = 0xFFFFFFFF;
  constexpr std::chrono::seconds kTakesNoMore{2};
  for (;;) {
    const absl::Status status = socket_.Send(LinkType::kMemDel, 0, next_seq_++, BytesOf(unknown),
                                             {}, std::chrono::steady_clock::now() + kTakesNoMore);
    if (absl::IsDeadlineExceeded(status)) return absl::OkStatus();
    if (!status.ok()) return status;
  }
}

}  // namespace vmbfs
