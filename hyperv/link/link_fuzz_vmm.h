// The in-process VMM of link_fuzz: a peer that checks every frame the server sends.

#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_fuzz_server.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

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
