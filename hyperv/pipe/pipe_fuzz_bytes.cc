#include "hyperv/pipe/pipe_fuzz_bytes.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/pipe/byte_pipe.h"
#include "hyperv/pipe/pipe_fuzz_guest.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 256;

class ByteModeFuzzer {
 public:
  ByteModeFuzzer(FuzzInput& input, PageLayout layout, size_t data_pages)
      : input_(input), guest_(layout, data_pages) {
    pipe_.emplace(guest_.OpenHost());
  }

  void Run() {
    for (int step = 0; step < kStepsMax && !input_.empty() && !broken_; ++step) Step();
    Require(guest_.OutsideIsUntouched(), "nothing outside the rings is written");
  }

 private:
  // One packet of the guest's, as far as it was read.
  struct Expected {
    uint32_t at = 0;         // in the ring
    uint32_t header_at = 0;  // its pipe header
    bool broken = false;
    std::vector<std::byte> data;  // none: an end of stream
    size_t read_bytes = 0;
  };

  void Step() {
    switch (input_.Below(12)) {
      case 0:
      case 1:
        return SendData();
      case 2:
        return SendPartial();
      case 3:
        return SendRaw();
      case 4:
      case 5:
      case 6:
        return Read();
      case 7:
        return ArmRead();
      case 8:
        return Restart();
      case 9:
        return guest_.TakeAnswers();
      case 10:
        return ArmWrite();
      default:
        return Write();
    }
  }

  // --- the guest ---

  std::vector<std::byte> TakePattern() {
    const size_t bytes = input_.OneIn(8) ? input_.U16() % 16'385u : input_.U8();
    std::vector<std::byte> data;
    for (size_t i = 0; i < bytes; ++i) data.push_back(static_cast<std::byte>(i * 3 + sent_));
    return data;
  }
  void SendData() {
    std::vector<std::byte> data = TakePattern();
    const auto packet = GuestEnd::Packet(1, static_cast<uint32_t>(data.size()), data);
    Put(packet, {.data = std::move(data)});
  }
  // As an earlier host left it.
  void SendPartial() {
    std::vector<std::byte> data = TakePattern();
    const size_t read_bytes = input_.U8();
    const auto sizes = static_cast<uint32_t>(data.size() | read_bytes << 16);
    Expected expected{.broken = read_bytes >= data.size(), .data = {}, .read_bytes = read_bytes};
    const auto packet = GuestEnd::Packet(2, sizes, data);
    expected.data = std::move(data);
    Put(packet, std::move(expected));
  }
  void SendRaw() {
    const GuestEnd::RawPacket raw = GuestEnd::TakeRawPacket(input_);
    const bool partial = raw.message_type == 2;
    const size_t bytes = partial ? raw.size_field & 0xFFFF : raw.size_field;
    const size_t read_bytes = partial ? raw.size_field >> 16 : 0;
    Expected expected{.broken = !raw.is_in_band || (raw.message_type != 1 && !partial) ||
                                bytes > raw.room_bytes || (partial && read_bytes >= bytes),
                      .data = {}};
    if (!expected.broken) {
      const auto from = raw.bytes.begin() + static_cast<std::ptrdiff_t>(raw.data_at);
      expected.data.assign(from, from + static_cast<std::ptrdiff_t>(bytes));
      expected.read_bytes = read_bytes;
    }
    Put(raw.bytes, std::move(expected), raw.data_at - 8);
  }
  void Put(std::span<const std::byte> packet, Expected expected, size_t header_at = 16) {
    expected.at = guest_.in();
    expected.header_at = static_cast<uint32_t>(expected.at + header_at);
    if (!guest_.Put(packet)) return;
    expected_.push_back(std::move(expected));
    ++sent_;
  }

  // --- the host: the code under test ---

  void Read() {
    const size_t bytes = 1 + (input_.OneIn(8) ? input_.U16() % 20'000u : input_.U8());
    const std::span<std::byte> buffer = std::span(buffer_).first(bytes);
    const auto read = pipe_->Read(buffer);
    std::vector<std::byte> due;
    while (due.size() < bytes && !expected_.empty()) {
      Expected& next = expected_.front();
      if (next.broken || next.data.empty()) break;
      const size_t part = std::min(bytes - due.size(), next.data.size() - next.read_bytes);
      const auto from = next.data.begin() + static_cast<std::ptrdiff_t>(next.read_bytes);
      due.insert(due.end(), from, from + static_cast<std::ptrdiff_t>(part));
      next.read_bytes += part;
      if (next.read_bytes == next.data.size()) expected_.pop_front();
    }
    if (due.empty()) return CheckReadOfNothing(read, buffer);
    Require(read.ok() && *read == due.size(), "as many bytes as are there and fit");
    Require(std::ranges::equal(due, buffer.first(due.size())), "and these");
    CheckRing();
  }
  void CheckReadOfNothing(const absl::StatusOr<std::optional<size_t>>& read,
                          std::span<std::byte> buffer) {
    if (expected_.empty()) return Require(read.ok() && !read->has_value(), "nothing is there");
    if (expected_.front().broken) {
      Require(absl::IsInvalidArgument(read.status()), "a broken message is the peer's fault");
      Require(absl::IsInvalidArgument(pipe_->Read(buffer).status()), "and stays the next one");
      broken_ = true;
      return;
    }
    Require(read.ok() && *read == 0u, "the end of the stream is told");
    expected_.pop_front();
    CheckRing();
  }
  // The space of what was read is given back; of a message in part, the ring says
  // how much.
  void CheckRing() const {
    const uint32_t next = expected_.empty() ? guest_.in() : expected_.front().at;
    const uint32_t size = guest_.ring_bytes();
    Require(guest_.waiting_bytes() == (guest_.in() + size - next) % size, "space is given back");
    if (expected_.empty() || expected_.front().broken) return;
    const Expected& front = expected_.front();
    const uint64_t header = front.read_bytes == 0 ? 1 | front.data.size() << 32
                                                  : 2 | uint64_t{front.data.size()} << 32 |
                                                        uint64_t{front.read_bytes} << 48;
    // A PARTIAL of which nothing was read may come from the guest only.
    const uint64_t stands = guest_.Word(front.header_at);
    Require(stands == header || (front.read_bytes == 0 && stands == (header ^ 3)),
            "the ring says how far a message was read");
  }

  void ArmRead() {
    const auto more = pipe_->ArmRead();
    Require(more.ok() && *more == !expected_.empty(), "it looks once more before it sleeps");
    Require(guest_.host_wants_signals(), "and is to be woken");
  }

  void Restart() {
    pipe_.reset();
    pipe_.emplace(guest_.OpenHost());
  }

  size_t chunk_bytes_max() const {
    return std::min<size_t>(BytePipe::kChunkBytesMax, guest_.ring_bytes() - 40 - 8);
  }

  void Write() {
    if (input_.OneIn(8)) {
      const bool fits = GuestEnd::RingBytes(0) <= guest_.host_space();
      const auto ended = pipe_->WriteEndOfStream();
      Require(ended.ok() && *ended == fits, "an end is told when there is room");
      if (fits) guest_.Expect({});
      return;
    }
    const std::vector<std::byte> bytes = TakePattern();
    std::span<const std::byte> left = bytes;
    size_t space = guest_.host_space();
    while (!left.empty()) {
      const auto chunk = left.first(std::min(left.size(), chunk_bytes_max()));
      if (GuestEnd::RingBytes(chunk.size()) > space) break;
      space -= GuestEnd::RingBytes(chunk.size());
      guest_.Expect({chunk.begin(), chunk.end()});
      left = left.subspan(chunk.size());
    }
    const auto written = pipe_->Write(bytes);
    Require(written.ok() && *written == bytes.size() - left.size(), "as many as there is room for");
  }

  void ArmWrite() {
    const size_t bytes = input_.U16();
    const size_t needed = GuestEnd::RingBytes(std::min(bytes, chunk_bytes_max()));
    const auto fits = pipe_->ArmWrite(bytes);
    Require(fits.ok() && *fits == (needed <= guest_.host_space()), "it looks once more");
    guest_.CheckSpaceRequest(needed);
  }

  FuzzInput& input_;
  GuestEnd guest_;
  std::optional<BytePipe> pipe_;
  uint64_t sent_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(20'000);
  std::deque<Expected> expected_;  // in the ring and not read
  bool broken_ = false;
};

}  // namespace

void FuzzByteMode(FuzzInput& input, PageLayout layout, size_t data_pages) {
  ByteModeFuzzer(input, layout, data_pages).Run();
}

}  // namespace vmbfs::hyperv
