// The in-process VMM of link_fuzz: the server under test with its device, guest
// memory, and a peer that checks every frame the server sends.

#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/guid/guid.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/link_server.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

inline constexpr size_t kRamPages = 8;    // page 1: message slots, page 2: event flags
inline constexpr size_t kRingPages = 10;  // five for each ring
inline constexpr uint64_t kRingGpa = 0x100000;

// Sends packets back, and watches that it is called in order.
class EchoDevice final : public ChannelDevice {
 public:
  EchoDevice() {
    offer_.interface_id = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
    offer_.flags = kOfferFlagNamedPipe;
  }
  const ChannelOffer& offer() const override { return offer_; }

  absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()>) override {
    Require(channel_ == nullptr, "one open at a time");
    channel_ = std::move(channel);
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Run() override {
    Require(channel_ != nullptr, "only an open device runs");
    std::array<std::byte, 1024> buffer;
    for (int packets = 0; packets < 16; ++packets) {
      const auto packet = channel_->incoming().Read(buffer);
      if (!packet.ok()) return packet.status();
      if (!packet->has_value()) return channel_->incoming().Arm();
      if (channel_->incoming().Consume()) channel_->SignalPeer();
      const auto room = channel_->outgoing().Reserve((*packet)->payload.size());
      if (!room.ok()) return room.status();
      if (!*room) continue;
      channel_->outgoing().CopyIn(0, (*packet)->payload);
      channel_->outgoing().Commit((*packet)->payload.size());
      if (channel_->outgoing().Publish()) channel_->SignalPeer();
    }
    return true;
  }
  void Close() override {
    Require(channel_ != nullptr, "only an open device is closed");
    channel_.reset();
  }
  bool open() const { return channel_ != nullptr; }

 private:
  ChannelOffer offer_;
  std::unique_ptr<Channel> channel_;
};

// The server under test, for the life of the process.
class Server {
 public:
  Server() {
    LinkOptions options;
    options.socket_path = path_;
    Require(server_.Listen(options).ok(), "the server listens");
    server_.Start();
  }
  // Lets everything happen that can; false when nothing could.
  bool Poll() {
    constexpr int kHandlersMax = 100'000;
    int handlers = 0;
    while (context_.poll_one() > 0) Require(++handlers < kHandlersMax, "the server comes to rest");
    return handlers > 0;
  }
  // The device goes, or comes (back). It comes in any case for a new connection.
  void RevokeDevice() {
    if (std::exchange(offered_, false)) server_.Remove(*device_);
  }
  bool OfferDevice() {
    if (!offered_) offered_ = server_.Add(device_).ok();
    return offered_;
  }
  const std::string& path() const { return path_; }
  LinkStatus status() const { return server_.status(); }
  const EchoDevice& device() const { return *device_; }

 private:
  ScratchFolder folder_;
  std::string path_ = folder_.Path("vm.sock");
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  LinkServer server_{context_.get_executor()};
  std::shared_ptr<EchoDevice> device_ = std::make_shared<EchoDevice>();
  bool offered_ = false;
};

inline Server& TheServer() {
  static Server* const server = new Server;  // its folder goes with the sandbox
  return *server;
}

// Guest memory in a sealed memfd, seen by both sides.
class SharedPages {
 public:
  explicit SharedPages(size_t pages) : bytes_(pages * 4096), fd_(TestMemory(bytes_, SealShrink())) {
    void* mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    Require(mapped != MAP_FAILED, "memory is mapped");
    data_ = static_cast<std::byte*>(mapped);
  }
  void Clear() { std::memset(data_, 0, bytes_); }
  std::vector<std::byte> Copy() const { return {data_, data_ + bytes_}; }
  std::byte* at(size_t offset) const { return data_ + offset % bytes_; }
  uint32_t Word(size_t offset) const {
    uint32_t word = 0;
    std::memcpy(&word, data_ + offset, sizeof(word));
    return word;
  }
  void SetWord(size_t offset, uint32_t word) { std::memcpy(data_ + offset, &word, sizeof(word)); }
  size_t bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  size_t bytes_;
  UniqueFd fd_;
  std::byte* data_ = nullptr;
};

inline SharedPages& Ram() {
  static SharedPages pages(kRamPages);
  return pages;
}
inline SharedPages& Rings() {
  static SharedPages pages(kRingPages);
  return pages;
}

// How a VMM answers what the server asks.
enum class Answers { kRight, kNever, kError, kWrongDescriptor };

// The forms of the link that HELLO chooses from.
enum class Form { kDirect, kMediated, kChannel };

// One connection, and what the server may still say on it.
class Vmm {
 public:
  explicit Vmm(Form form) : form_(form), socket_(ConnectTo(TheServer().path())) {
    Require(TheServer().OfferDevice(), "a device is offered");
    Ram().Clear();
    Rings().Clear();
    Require(static_cast<bool>(socket_), "the server takes connections");
    ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    Settle();
  }
  ~Vmm() {
    socket_.reset();
    // The kernel may tell of it a moment later.
    for (int look = 0; look < 100 && (TheServer().Poll(), TheServer().status().connected); ++look) {
      ::usleep(10'000);
    }
    Require(!TheServer().status().connected, "the end of a connection is noticed");
    Require(!TheServer().device().open(), "and its channels are closed");
  }

  bool ended() const { return ended_; }
  uint64_t acknowledged() const { return acknowledged_; }
  bool NothingIsUnanswered() const { return asked_.empty(); }
  void set_answers(Answers answers) { answers_ = answers; }

  // Sends a frame; `asked`: it gets exactly one reply.
  void Send(uint32_t type, std::span<const std::byte> payload, bool asked,
            const std::vector<int>& descriptors = {}, uint16_t flags = 0) {
    const uint64_t seq = next_seq_++;
    sent_.insert(seq);
    if (asked) asked_[seq] = type;
    SendRaw(FrameBytes(type, flags, static_cast<uint16_t>(descriptors.size()), seq, payload),
            descriptors);
  }
  void SendRaw(std::span<const std::byte> bytes, const std::vector<int>& descriptors = {}) {
    if (ended_ || bytes.empty()) return;
    SendBytes(socket_, bytes, descriptors);
    Settle();
  }
  uint64_t next_seq() const { return next_seq_; }
  // What is sent from now on may be anything: replies to it are not foreseen.
  void ExpectAnything() { anything_ = true; }

  // Lets server and VMM go on until both wait.
  void Settle() {
    bool moved = true;
    while (moved) {
      moved = TheServer().Poll();
      while (!ended_ && Readable()) {
        Receive();
        moved = true;
      }
    }
  }

  void RingDoorbell(uint32_t connection) {
    const auto doorbell = doorbells_.find(connection);
    if (doorbell != doorbells_.end()) ::eventfd_write(doorbell->second.get(), 1);
    Settle();
  }

  // The channel level's signals.
  int kick_fd() const { return kick_.get(); }
  int interrupt_fd() const { return interrupt_.get(); }
  void Kick() {
    ::eventfd_write(kick_.get(), 1);
    Settle();
  }
  // By the interrupt of a channel, or the event of EVENT_GET.
  bool TakeInterrupt() {
    eventfd_t count = 0;
    return ::eventfd_read(interrupt_.get(), &count) == 0;
  }
  // What the channel level was last told: of the newest OFFER, of a GPADL_ADD or OPEN.
  uint32_t channel() const { return channel_; }
  uint32_t result() const { return result_; }
  // MSG_SEND so far.
  uint64_t messages_sent() const { return messages_sent_; }

  // The guest takes a message from its slot; empty when there is none.
  std::vector<std::byte> TakeMessage() {
    if (form_ == Form::kMediated) return TakeFromMailbox();
    constexpr size_t kSlot = 4096 + 2 * 256;
    if (Ram().Word(kSlot) == 0) return {};
    const uint32_t head = Ram().Word(kSlot + 4);
    Require((head & 0xFF) <= 240, "a message fits its slot");
    const std::byte* const from = Ram().at(kSlot + 16);
    std::vector<std::byte> message(from, from + (head & 0xFF));
    Ram().SetWord(kSlot, 0);
    if ((head & 0x100) != 0) ::eventfd_write(ack_.get(), 1);
    Settle();
    return message;
  }

 private:
  std::vector<std::byte> TakeFromMailbox() {
    std::vector<std::byte> message = std::exchange(mailbox_, {});
    if (std::exchange(refused_as_busy_, false)) {
      LinkSintWire eom{};
      eom.sint = 2;
      Send(0x564C0023, WireBytes(eom), false);
    }
    return message;
  }

  bool Readable() const {
    pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&readable, 1, 0) == 1;
  }

  void Receive() {
    std::optional<TestFrame> frame = ReceiveFrame(socket_);
    if (!frame) {
      ended_ = true;
      return;
    }
    Require(!last_frame_, "nothing follows the reason of an end");
    if (frame->reply()) {
      CheckReply(*frame);
    } else {
      Answer(*std::move(frame));
    }
  }

  void CheckReply(const TestFrame& frame) {
    Require(frame.descriptors.empty(), "no reply of the server has descriptors");
    const auto asked = asked_.find(frame.seq);
    const bool foreseen =
        asked != asked_.end() && asked->second == static_cast<uint32_t>(frame.type);
    if (foreseen) asked_.erase(asked);
    if (!frame.error()) {
      Require(foreseen || anything_, "a reply has its request, once");
      return CheckResult(frame);
    }
    Require(frame.error_code() >= 1 && frame.error_code() <= 5, "an ERROR has a known code");
    Require(frame.payload.size() == 8 + WordAt(frame.payload, 4) && frame.payload.size() <= 1032,
            "and a text of the length it says");
    const bool names_frame = sent_.contains(frame.seq) || anything_;
    const bool names_none = frame.type == LinkType::kHello && frame.seq == 0;
    Require(names_frame || names_none, "it names a frame of ours, or none");
    // Busy, not permitted, and a broken rule are last words.
    last_frame_ = frame.error_code() != 2 && frame.error_code() != 3;
  }

  void CheckResult(const TestFrame& frame) {
    switch (frame.type) {
      case LinkType::kHello:
        Require(frame.payload.size() == 24, "HELLO_OK");
        Require(anything_ || WordAt(frame.payload, 4) == (form_ == Form::kChannel ? 2 : 1),
                "the level is the one that was asked for");
        Require(anything_ || WordAt(frame.payload, 16) == (form_ == Form::kDirect     ? 1
                                                           : form_ == Form::kMediated ? 2
                                                                                      : 0),
                "and so is the delivery");
        return;
      case LinkType::kGpadlAdd:
      case LinkType::kOpen:
        result_ = WordAt(frame.payload, 0);
        Require(frame.payload.size() == 8 && (result_ == 0 || result_ == 0x8000FFFF),
                "a result for the guest");
        return;
      default:
        Require(frame.payload.empty(), "no other reply has a payload");
    }
  }

  // Whether the form has such a frame.
  void CheckForm(Form a, Form b) const {
    Require(form_ == a || form_ == b || anything_, "a frame of the form that was agreed on");
  }

  void Answer(TestFrame frame) {
    std::vector<int> descriptors;
    std::vector<std::byte> payload;
    switch (frame.type) {
      case LinkType::kPostAck: {
        Require(frame.payload.size() == 8, "POST_ACK");
        const uint64_t seq = WordAt(frame.payload, 0);
        Require(seq > acknowledged_ || anything_, "posts are acknowledged in order");
        acknowledged_ = seq;
        return;
      }
      case LinkType::kSintGet:
        CheckForm(Form::kDirect, Form::kDirect);
        Require(frame.payload.size() == 8 && WordAt(frame.payload, 4) <= 15, "SINT_GET");
        descriptors = {irq_.get(), ack_.get()};
        break;
      case LinkType::kConnSet:
        CheckForm(Form::kDirect, Form::kMediated);
        Require(frame.payload.size() == 8 && frame.descriptors.size() == 1, "CONN_SET");
        doorbells_[WordAt(frame.payload, 0)] = std::move(frame.descriptors[0]);
        break;
      case LinkType::kConnClr:
        Require(doorbells_.erase(WordAt(frame.payload, 0)) == 1, "what was set is cleared");
        break;
      case LinkType::kMsgSend:
        CheckForm(Form::kMediated, Form::kMediated);
        payload = TakeMsgSend(frame.payload);
        break;
      case LinkType::kEventGet:
        CheckForm(Form::kMediated, Form::kMediated);
        Require(frame.payload.size() == 16 && WordAt(frame.payload, 4) == 2 &&
                    WordAt(frame.payload, 8) < 2048,
                "EVENT_GET");
        descriptors = {interrupt_.get()};
        break;
      case LinkType::kOffer:
        CheckForm(Form::kChannel, Form::kChannel);
        Require(frame.payload.size() == 168, "OFFER");
        payload = OfferOk();
        break;
      case LinkType::kRevoke:
        CheckForm(Form::kChannel, Form::kChannel);
        Require(frame.payload.size() == 8 && WordAt(frame.payload, 0) <= channel_, "REVOKE");
        break;
      default:
        Require(false, "a server sends what it may send");
    }
    if (answers_ == Answers::kNever) return;
    uint16_t flags = 1;
    if (answers_ == Answers::kError) {
      flags = 5;
      descriptors.clear();
      payload = {std::byte{3}, {}, {}, {}, std::byte{2}, {}, {}, {}, std::byte{'n'}, std::byte{0}};
    } else if (answers_ == Answers::kWrongDescriptor && !descriptors.empty()) {
      descriptors = {Ram().fd()};
    }
    const auto count = static_cast<uint16_t>(descriptors.size());
    SendBytes(socket_,
              FrameBytes(static_cast<uint32_t>(frame.type), flags, count, frame.seq, payload),
              descriptors);
  }

  std::vector<std::byte> TakeMsgSend(std::span<const std::byte> payload) {
    ++messages_sent_;
    Require(payload.size() == 264 && WordAt(payload, 12) <= 15 && WordAt(payload, 16) == 1 &&
                WordAt(payload, 20) <= 240,
            "MSG_SEND");
    LinkMsgSendResultWire result{};
    if (mailbox_.empty()) {
      const auto message = payload.subspan(24, WordAt(payload, 20));
      mailbox_.assign(message.begin(), message.end());
    } else {
      result.result = 1;
      refused_as_busy_ = true;
    }
    return {WireBytes(result).begin(), WireBytes(result).end()};
  }
  std::vector<std::byte> OfferOk() {
    LinkOfferOkWire ok{};
    ok.channel = ++channel_;
    return {WireBytes(ok).begin(), WireBytes(ok).end()};
  }

  const Form form_;
  UniqueFd socket_;
  UniqueFd kick_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  UniqueFd interrupt_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  UniqueFd irq_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  UniqueFd ack_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  Answers answers_ = Answers::kRight;
  uint64_t next_seq_ = 1;
  std::set<uint64_t> sent_;
  std::map<uint64_t, uint32_t> asked_;  // seq -> type
  std::map<uint32_t, UniqueFd> doorbells_;
  uint64_t acknowledged_ = 0;
  uint32_t channel_ = 100;
  uint32_t result_ = 0xDEAD;
  uint64_t messages_sent_ = 0;
  std::vector<std::byte> mailbox_;
  bool refused_as_busy_ = false;
  bool anything_ = false;
  bool last_frame_ = false;
  bool ended_ = false;
};

}  // namespace vmbfs::hyperv
