// MessagePipe in message mode against a model of what must be accepted: every
// message byte for byte, every broken packet refused, every answer in the ring
// as the format says.
//
// Input: a byte of options (its upper half chooses the kind of pipe; message mode
// is all there is so far); then calls of both sides. The guest's side is written
// here by hand, so that it can break every rule of shared/specs/vmbus.md 4.2 and
// 5.1 one by one.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/pipe/message_pipe.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 256;

void Append(std::vector<std::byte>& to, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
}

uint64_t NumberOf(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i)
    value = value << 8 | std::to_integer<uint64_t>(bytes[i - 1]);
  return value;
}

class MessageModeFuzzer {
 public:
  MessageModeFuzzer(FuzzInput& input, PageLayout layout, size_t data_pages)
      : input_(input),
        pair_({.data_pages = data_pages, .layout = layout}),
        incoming_(pair_.GuestToHost()),
        outgoing_(pair_.HostToGuest()),
        size_(incoming_.data_bytes()) {
    auto channel = pair_.OpenHost();
    Require(channel.ok(), "a fresh channel opens");
    pipe_.emplace(*std::move(channel));
  }

  void Run() {
    for (int step = 0; step < kStepsMax && !input_.empty() && !broken_; ++step) Step();
    Require(pair_.OutsideIsUntouched(), "nothing outside the rings is written");
  }

 private:
  // What one packet of the guest's must lead to.
  struct Expected {
    enum Kind { kMessage, kIgnored, kBroken } kind = kBroken;
    std::vector<std::byte> data;
    size_t ring_bytes = 0;
  };

  void Step() {
    switch (input_.Below(12)) {
      case 0:
      case 1:
      case 2:
        return SendData();
      case 3:
        return SendRaw();
      case 4:
      case 5:
      case 6:
        return Read();
      case 7:
        return Consume();
      case 8:
        return ArmRead();
      case 9:
        return ArmWrite();
      case 10:
        return TakeAnswers();
      default:
        return Write();
    }
  }

  // --- the guest ---

  size_t FreeBytes() const {
    const uint32_t out = incoming_.Load(ControlWord::kOut, std::memory_order_relaxed);
    return size_ - (in_ + size_ - out) % size_ - 8;
  }

  void SendData() {
    const size_t bytes = input_.OneIn(8) ? input_.U16() % 17000u : input_.U8();
    Expected expected{.kind = Expected::kMessage, .data = {}};
    for (size_t i = 0; i < bytes; ++i) expected.data.push_back(static_cast<std::byte>(i + sent_));
    std::vector<std::byte> packet;
    Append(packet, 6 | 2 << 16, 4);
    Append(packet, 2 + (8 + bytes + 7) / 8, 4);
    Append(packet, 0, 8);
    Append(packet, 1, 4);
    Append(packet, bytes, 4);
    packet.insert(packet.end(), expected.data.begin(), expected.data.end());
    packet.resize((packet.size() + 7) / 8 * 8);
    Append(packet, uint64_t{in_} << 32, 8);
    Put(packet, std::move(expected));
  }

  // A packet of which every field is the input's.
  void SendRaw() {
    const uint16_t type = input_.OneIn(8) ? input_.U8() : 6;
    const auto offset_units = static_cast<uint16_t>(input_.OneIn(8) ? input_.U8() % 8 : 2);
    const auto payload_units = static_cast<uint16_t>(input_.U8() % 16);
    const uint16_t flags = input_.OneIn(16) ? input_.U8() : 0;
    const uint32_t message_type = input_.OneIn(8) ? input_.U32() : input_.U8() % 6;
    const uint32_t data_bytes = input_.OneIn(8) ? input_.U32() : input_.U8() % 128;
    std::vector<std::byte> packet;
    Append(packet, type, 2);
    Append(packet, offset_units, 2);
    const auto length_units = static_cast<uint16_t>(offset_units + payload_units);
    Append(packet, length_units, 2);
    Append(packet, flags, 2);
    Append(packet, input_.U8(), 8);
    packet.resize(std::max<size_t>(16, offset_units * 8));
    const size_t payload_at = packet.size();
    const auto body = input_.Bytes(payload_units * 8u);
    Append(packet, message_type, 4);
    Append(packet, data_bytes, 4);
    packet.insert(packet.end(), body.begin(), body.end());
    packet.resize(std::max<size_t>(16, length_units * 8u));

    Expected expected;
    const bool packet_ok = type == 6 && flags == 0 && offset_units >= 2 && payload_units >= 1;
    if (packet_ok && data_bytes <= payload_units * 8u - 8) {
      if (message_type == 1) {
        expected.kind = Expected::kMessage;
        const auto from = packet.begin() + static_cast<std::ptrdiff_t>(payload_at) + 8;
        expected.data.assign(from, from + data_bytes);
      } else if (message_type >= 3 && message_type <= 5) {
        expected.kind = Expected::kIgnored;  // GPA-direct is not advertised
      }
    }
    Append(packet, uint64_t{in_} << 32, 8);
    Put(packet, std::move(expected));
  }

  void Put(std::span<const std::byte> packet, Expected expected) {
    if (packet.size() > FreeBytes()) return;
    incoming_.CopyIn(in_, packet);
    in_ = static_cast<uint32_t>((in_ + packet.size()) % size_);
    incoming_.Store(ControlWord::kIn, in_, std::memory_order_release);
    expected.ring_bytes = packet.size();
    expected_.push_back(std::move(expected));
    ++sent_;
  }

  void TakeAnswers() {
    while (!answers_.empty()) {
      const uint32_t in = outgoing_.Load(ControlWord::kIn, std::memory_order_acquire);
      const std::vector<std::byte>& answer = answers_.front();
      const size_t payload = (8 + answer.size() + 7) / 8 * 8;
      Require((in + size_ - taken_) % size_ >= 16 + payload + 8,
              "an answer that was sent is there");
      std::vector<std::byte> bytes(16 + payload + 8);
      outgoing_.CopyOut(taken_, bytes);
      const std::span<const std::byte> all = bytes;
      Require(NumberOf(all.first(8)) == (6 | 2 << 16 | (2 + payload / 8) << 32), "its descriptor");
      Require(NumberOf(all.subspan(8, 8)) == 0, "a pipe uses no transaction ids");
      Require(NumberOf(all.subspan(16, 8)) == (1 | answer.size() << 32), "its pipe header");
      Require(std::ranges::equal(all.subspan(24, answer.size()), answer), "its bytes");
      Require(NumberOf(all.last(8)) == uint64_t{taken_} << 32, "its trailer");
      taken_ = static_cast<uint32_t>((taken_ + bytes.size()) % size_);
      answers_.pop_front();
    }
    Require(outgoing_.Load(ControlWord::kIn, std::memory_order_acquire) == taken_,
            "and nothing that was not sent");
    outgoing_.Store(ControlWord::kOut, taken_, std::memory_order_release);
  }

  // --- the host: the code under test ---

  void Read() {
    const size_t buffer_bytes = input_.OneIn(16) ? input_.U8() : 16'384;
    const std::span<std::byte> buffer = std::span(buffer_).first(buffer_bytes);
    const uint64_t ignored_before = pipe_->ignored_messages();
    const auto message = pipe_->Read(buffer);

    uint64_t ignored = 0;
    while (ignored < MessagePipe::kOthersPerReadMax && !expected_.empty() &&
           expected_.front().kind == Expected::kIgnored) {
      expected_.pop_front();
      ++ignored;
    }
    Require(pipe_->ignored_messages() == ignored_before + ignored, "ignored messages are counted");
    if (expected_.empty() || ignored == MessagePipe::kOthersPerReadMax) {
      Require(message.ok() && !message->has_value(), "nothing is there, or too much to ignore");
      return;
    }
    const Expected& next = expected_.front();
    if (next.kind == Expected::kBroken || next.data.size() > buffer_bytes) {
      Require(absl::IsInvalidArgument(message.status()), "a broken message is the peer's fault");
      Require(absl::IsInvalidArgument(pipe_->Read(buffer).status()), "and stays the next one");
      broken_ = true;
      return;
    }
    Require(message.ok() && message->has_value(), "a whole message is read");
    Require(std::ranges::equal(**message, next.data), "byte for byte");
    expected_.pop_front();
  }

  void Consume() {
    pipe_->Consume();
    size_t waiting = 0;
    for (const Expected& each : expected_) waiting += each.ring_bytes;
    const uint32_t out = incoming_.Load(ControlWord::kOut, std::memory_order_acquire);
    Require((in_ + size_ - out) % size_ == waiting, "the space of all messages read is given back");
  }

  void ArmRead() {
    Consume();
    const auto more = pipe_->ArmRead();
    Require(more.ok() && *more == !expected_.empty(), "it looks once more before it sleeps");
    Require(incoming_.Load(ControlWord::kInterruptMask, std::memory_order_relaxed) == 0,
            "and is to be woken");
  }

  size_t OutgoingFree() const {
    const uint32_t in = outgoing_.Load(ControlWord::kIn, std::memory_order_relaxed);
    const uint32_t out = outgoing_.Load(ControlWord::kOut, std::memory_order_relaxed);
    return size_ - (in + size_ - out) % size_ - 8;
  }
  static size_t RingBytes(size_t bytes) { return 16 + (8 + bytes + 7) / 8 * 8 + 8; }
  size_t TakeMessageBytes() {
    const size_t bytes_max = pipe_->max_message_bytes();
    Require(bytes_max == std::min<size_t>(16'384, size_ - 40 - 8), "the largest message");
    return (input_.OneIn(8) ? input_.U16() : input_.U8()) % (bytes_max + 1);
  }

  void Write() {
    std::vector<std::byte> message(TakeMessageBytes());
    for (size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i * 7 + sent_);
    const bool fits = RingBytes(message.size()) <= OutgoingFree();
    if (input_.OneIn(2)) {
      const auto written = pipe_->Write(message);
      Require(written.ok() && *written == fits, "written when there is room");
      if (fits) answers_.push_back(std::move(message));
      return;
    }
    const auto space = pipe_->Reserve(message.size());
    Require(space.ok() && space->has_value() == fits, "reserved when there is room");
    if (!fits) return;
    std::span<const std::byte> left = message;
    for (const iovec& piece : (*space)->span()) {
      Require(piece.iov_len <= left.size(), "the pieces are the reservation's");
      CopyToGuest(static_cast<std::byte*>(piece.iov_base), left.data(), piece.iov_len);
      left = left.subspan(piece.iov_len);
    }
    Require(left.empty(), "all of it");
    if (input_.OneIn(4)) message.resize(message.size() / 2);
    pipe_->Send(message.size());
    answers_.push_back(std::move(message));
  }

  void ArmWrite() {
    const size_t bytes = TakeMessageBytes();
    const auto fits = pipe_->ArmWrite(bytes);
    Require(fits.ok() && *fits == (RingBytes(bytes) <= OutgoingFree()), "it looks once more");
    const uint32_t pending =
        outgoing_.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed);
    Require(pending >= RingBytes(bytes) && pending <= size_ - 8, "what it waits for is possible");
    if (input_.OneIn(2)) {
      pipe_->DisarmWrite();
      Require(outgoing_.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed) == 0,
              "the wait is forgotten");
    }
  }

  FuzzInput& input_;
  ChannelPair pair_;
  RingMemory incoming_;
  RingMemory outgoing_;
  const uint32_t size_;
  std::optional<MessagePipe> pipe_;
  uint32_t in_ = 0;     // the guest's write index
  uint32_t taken_ = 0;  // its read index
  uint64_t sent_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(16'384);
  std::deque<Expected> expected_;               // in the ring and not read
  std::deque<std::vector<std::byte>> answers_;  // sent and not taken
  bool broken_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t options = input.U8();
  const PageLayout layout = (options & 1) != 0 ? PageLayout::kScattered : PageLayout::kContiguous;
  const size_t data_pages = (options & 2) != 0 ? 5 : 1;
  switch (options >> 4) {
    default:
      MessageModeFuzzer(input, layout, data_pages).Run();
  }
  return 0;
}

}  // namespace vmbfs::hyperv
