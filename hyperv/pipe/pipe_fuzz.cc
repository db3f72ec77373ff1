// MessagePipe against a model of what must be accepted: every message byte for
// byte, every broken packet refused, every answer in the ring as the format says;
// with GPA-direct registrations, the table as a map. BytePipe in the same way
// against a queue of bytes (pipe_fuzz_bytes.h).
//
// Input: a byte of options (its upper half chooses the kind of pipe: 1 message
// mode with registrations, 2 byte mode, others message mode without); then calls
// of both sides.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/pipe/message_pipe.h"
#include "hyperv/pipe/pipe_fuzz_bytes.h"
#include "hyperv/pipe/pipe_fuzz_guest.h"
#include "hyperv/pipe/pipe_fuzz_table.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 256;

class MessageModeFuzzer {
 public:
  MessageModeFuzzer(FuzzInput& input, PageLayout layout, size_t data_pages, GpaDirect gpa_direct)
      : input_(input), guest_(layout, data_pages), gpa_direct_(gpa_direct) {
    pipe_.emplace(guest_.OpenHost(), gpa_direct);
  }

  void Run() {
    for (int step = 0; step < kStepsMax && !input_.empty() && !broken_; ++step) Step();
    Require(guest_.OutsideIsUntouched(), "nothing outside the rings is written");
  }

 private:
  // What one packet of the guest's must lead to.
  struct Expected {
    enum Kind { kMessage, kIgnored, kSetUp, kTearDown, kBroken } kind = kBroken;
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
        return served() ? SendOther() : SendRaw();
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
        return guest_.TakeAnswers();
      default:
        return Write();
    }
  }

  // --- the guest ---

  void SendData() {
    const size_t bytes = input_.OneIn(8) ? input_.U16() % 17000u : input_.U8();
    Expected expected{.kind = Expected::kMessage, .data = {}};
    for (size_t i = 0; i < bytes; ++i) expected.data.push_back(static_cast<std::byte>(i + sent_));
    const auto packet = GuestEnd::Packet(1, static_cast<uint32_t>(bytes), expected.data);
    Put(packet, std::move(expected));
  }

  void SendRaw() {
    const GuestEnd::RawPacket raw = GuestEnd::TakeRawPacket(input_);
    Expected expected;
    if (raw.is_in_band && raw.size_field <= raw.room_bytes) {
      expected.kind = KindOf(raw.message_type);
      const auto from = raw.bytes.begin() + static_cast<std::ptrdiff_t>(raw.data_at);
      expected.data.assign(from, from + raw.size_field);
    }
    Put(raw.bytes, std::move(expected));
  }
  Expected::Kind KindOf(uint32_t message_type) const {
    if (message_type == 1) return Expected::kMessage;
    if (message_type < 3 || message_type > 5) return Expected::kBroken;
    if (!served() || message_type == 5) return Expected::kIgnored;
    return message_type == 3 ? Expected::kSetUp : Expected::kTearDown;
  }

  void SendOther() {
    const uint32_t kind = input_.Below(8);
    if (kind == 0) return SendRaw();
    if (kind == 1) return table_.CheckPart(input_, pipe_->gpa_direct());
    Expected expected{.kind = kind == 2 ? Expected::kTearDown : Expected::kSetUp, .data = {}};
    expected.data =
        kind == 2 ? TableModel::TakeTearDown(input_) : TableModel::TakeSetUp(input_, sent_);
    const uint32_t type = kind == 2 ? 4 : 3;
    const auto packet =
        GuestEnd::Packet(type, static_cast<uint32_t>(expected.data.size()), expected.data);
    if (expected.data.size() > 16'384) expected.kind = Expected::kBroken;
    Put(packet, std::move(expected));
  }

  void Put(std::span<const std::byte> packet, Expected expected) {
    if (!guest_.Put(packet)) return;
    expected.ring_bytes = packet.size() + 8;
    expected_.push_back(std::move(expected));
    ++sent_;
  }

  // --- the host: the code under test ---

  void Read() {
    const size_t buffer_bytes = input_.OneIn(16) ? input_.U8() : 16'384;
    const std::span<std::byte> buffer = std::span(buffer_).first(buffer_bytes);
    const uint64_t ignored_before = pipe_->ignored_messages();
    const auto message = pipe_->Read(buffer);

    int others = 0;
    uint64_t ignored = 0;
    while (others < MessagePipe::kOthersPerReadMax && !expected_.empty()) {
      Expected& next = expected_.front();
      if (next.kind == Expected::kIgnored) {
        ++ignored;
      } else if (next.kind == Expected::kSetUp) {
        if (!table_.SetUp(next.data)) next.kind = Expected::kBroken;
      } else if (next.kind == Expected::kTearDown) {
        if (!table_.TearDown(next.data)) next.kind = Expected::kBroken;
      }
      if (next.kind == Expected::kMessage || next.kind == Expected::kBroken) break;
      expected_.pop_front();
      ++others;
    }
    Require(pipe_->ignored_messages() == ignored_before + ignored, "ignored messages are counted");
    table_.CheckCounts(pipe_->gpa_direct());
    if (expected_.empty() || others == MessagePipe::kOthersPerReadMax) {
      Require(message.ok() && !message->has_value(), "nothing is there, or too much of others");
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
    Require(guest_.waiting_bytes() == waiting, "the space of all messages read is given back");
  }

  void ArmRead() {
    Consume();
    const auto more = pipe_->ArmRead();
    Require(more.ok() && *more == !expected_.empty(), "it looks once more before it sleeps");
    Require(guest_.host_wants_signals(), "and is to be woken");
  }

  size_t TakeMessageBytes() {
    const size_t bytes_max = pipe_->max_message_bytes();
    Require(bytes_max == std::min<size_t>(16'384, guest_.ring_bytes() - 40 - 8),
            "the largest message");
    return (input_.OneIn(8) ? input_.U16() : input_.U8()) % (bytes_max + 1);
  }

  void Write() {
    std::vector<std::byte> message(TakeMessageBytes());
    for (size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::byte>(i * 7 + sent_);
    const bool fits = GuestEnd::RingBytes(message.size()) <= guest_.host_space();
    if (input_.OneIn(2)) {
      const auto written = pipe_->Write(message);
      Require(written.ok() && *written == fits, "written when there is room");
      if (fits) guest_.Expect(std::move(message));
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
    guest_.Expect(std::move(message));
  }

  void ArmWrite() {
    const size_t bytes = TakeMessageBytes();
    const auto fits = pipe_->ArmWrite(bytes);
    const size_t needed = GuestEnd::RingBytes(bytes);
    Require(fits.ok() && *fits == (needed <= guest_.host_space()), "it looks once more");
    guest_.CheckSpaceRequest(needed);
    if (input_.OneIn(2)) {
      pipe_->DisarmWrite();
      Require(guest_.space_request() == 0, "the wait is forgotten");
    }
  }

  bool served() const { return gpa_direct_ == GpaDirect::kServed; }

  FuzzInput& input_;
  GuestEnd guest_;
  const GpaDirect gpa_direct_;
  std::optional<MessagePipe> pipe_;
  uint64_t sent_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(16'384);
  std::deque<Expected> expected_;  // in the ring and not read
  TableModel table_;
  bool broken_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t options = input.U8();
  const PageLayout layout = PageLayoutOf((options & 1) != 0, (options & 8) != 0);
  const size_t data_pages = (options & 2) != 0 ? 5 : 1;
  switch (options >> 4) {
    case 1:
      MessageModeFuzzer(input, layout, data_pages, GpaDirect::kServed).Run();
      break;
    case 2:
      FuzzByteMode(input, layout, data_pages);
      break;
    default:
      MessageModeFuzzer(input, layout, data_pages, GpaDirect::kIgnored).Run();
  }
  return 0;
}

}  // namespace vmbfs::hyperv
