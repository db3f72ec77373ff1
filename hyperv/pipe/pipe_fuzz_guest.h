// The guest's end of pipe_fuzz, written by hand, so that it can break every rule
// of shared/specs/vmbus.md 4.2 and 5.1 one by one.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "hyperv/channel/channel_pair.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

inline void Append(std::vector<std::byte>& to, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i) & 0xFF));
}

inline uint64_t NumberOf(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i)
    value = value << 8 | std::to_integer<uint64_t>(bytes[i - 1]);
  return value;
}

class GuestEnd {
 public:
  GuestEnd(PageLayout layout, size_t data_pages)
      : pair_({.data_pages = data_pages, .layout = layout}),
        to_host_(pair_.GuestToHost()),
        from_host_(pair_.HostToGuest()),
        size_(to_host_.data_bytes()) {}

  std::unique_ptr<Channel> OpenHost() {
    auto channel = pair_.OpenHost();
    Require(channel.ok(), "a channel in order opens");
    return *std::move(channel);
  }
  bool OutsideIsUntouched() const { return pair_.OutsideIsUntouched(); }
  uint32_t ring_bytes() const { return size_; }

  // --- to the host; packets are without their trailers ---

  // A packet of which every field is the input's.
  struct RawPacket {
    std::vector<std::byte> bytes;
    bool is_in_band = false;  // and has room for the pipe's header
    uint32_t message_type = 0;
    uint32_t size_field = 0;
    size_t room_bytes = 0;  // behind the pipe's header
    size_t data_at = 0;
  };
  static RawPacket TakeRawPacket(FuzzInput& input) {
    const uint16_t type = input.OneIn(8) ? input.U8() : 6;
    const auto offset_units = static_cast<uint16_t>(input.OneIn(8) ? input.U8() % 8 : 2);
    const auto payload_units = static_cast<uint16_t>(input.U8() % 16);
    const uint16_t flags = input.OneIn(16) ? input.U8() : 0;
    RawPacket raw;
    raw.message_type = input.OneIn(8) ? input.U32() : input.U8() % 6;
    raw.size_field = input.OneIn(8) ? input.U32() : input.U8() % 128;
    raw.is_in_band = type == 6 && flags == 0 && offset_units >= 2 && payload_units >= 1;
    raw.room_bytes = raw.is_in_band ? payload_units * 8u - 8 : 0;
    const auto length_units = static_cast<uint16_t>(offset_units + payload_units);
    Append(raw.bytes, type, 2);
    Append(raw.bytes, offset_units, 2);
    Append(raw.bytes, length_units, 2);
    Append(raw.bytes, flags, 2);
    Append(raw.bytes, input.U8(), 8);
    raw.bytes.resize(std::max<size_t>(16, offset_units * 8u));
    const auto body = input.Bytes(payload_units * 8u);
    Append(raw.bytes, raw.message_type, 4);
    Append(raw.bytes, raw.size_field, 4);
    raw.data_at = raw.bytes.size();
    raw.bytes.insert(raw.bytes.end(), body.begin(), body.end());
    raw.bytes.resize(std::max<size_t>(16, length_units * 8u));
    return raw;
  }

  static std::vector<std::byte> Packet(uint32_t message_type, uint32_t size_field,
                                       std::span<const std::byte> data) {
    std::vector<std::byte> packet;
    Append(packet, 6 | 2 << 16, 4);
    Append(packet, 2 + (8 + data.size() + 7) / 8, 4);
    Append(packet, 0, 8);
    Append(packet, message_type, 4);
    Append(packet, size_field, 4);
    packet.insert(packet.end(), data.begin(), data.end());
    packet.resize((packet.size() + 7) / 8 * 8);
    return packet;
  }

  // false: there is no room.
  bool Put(std::span<const std::byte> packet) {
    if (packet.size() + 8 > size_ - waiting_bytes() - 8) return false;
    std::vector<std::byte> trailer;
    Append(trailer, uint64_t{in_} << 32, 8);
    to_host_.CopyIn(in_, packet);
    to_host_.CopyIn(static_cast<uint32_t>((in_ + packet.size()) % size_), trailer);
    in_ = static_cast<uint32_t>((in_ + packet.size() + 8) % size_);
    to_host_.Store(ControlWord::kIn, in_, std::memory_order_release);
    return true;
  }
  uint32_t in() const { return in_; }
  // Written and not given back yet.
  uint32_t waiting_bytes() const {
    const uint32_t out = to_host_.Load(ControlWord::kOut, std::memory_order_acquire);
    return (in_ + size_ - out) % size_;
  }
  bool host_wants_signals() const {
    return to_host_.Load(ControlWord::kInterruptMask, std::memory_order_relaxed) == 0;
  }
  // What stands in the ring.
  uint64_t Word(uint32_t at) const {
    std::vector<std::byte> bytes(8);
    to_host_.CopyOut(at % size_, bytes);
    return NumberOf(bytes);
  }

  // --- from the host ---

  // The host has sent a DATA message.
  void Expect(std::vector<std::byte> answer) { answers_.push_back(std::move(answer)); }

  void TakeAnswers() {
    for (; !answers_.empty(); answers_.pop_front()) TakeAnswer(answers_.front());
    Require(from_host_.Load(ControlWord::kIn, std::memory_order_acquire) == taken_,
            "and nothing that was not sent");
    from_host_.Store(ControlWord::kOut, taken_, std::memory_order_release);
  }

  // Of the ring, for a message of `bytes`.
  static size_t RingBytes(size_t bytes) { return 16 + (8 + bytes + 7) / 8 * 8 + 8; }
  size_t host_space() const {
    const uint32_t in = from_host_.Load(ControlWord::kIn, std::memory_order_relaxed);
    const uint32_t out = from_host_.Load(ControlWord::kOut, std::memory_order_relaxed);
    return size_ - (in + size_ - out) % size_ - 8;
  }
  uint32_t space_request() const {
    return from_host_.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed);
  }
  void CheckSpaceRequest(size_t needed) const {
    Require(space_request() >= needed && space_request() <= size_ - 8,
            "what the host waits for is possible");
  }

 private:
  void TakeAnswer(std::span<const std::byte> answer) {
    const uint32_t in = from_host_.Load(ControlWord::kIn, std::memory_order_acquire);
    std::vector<std::byte> bytes(RingBytes(answer.size()));
    Require((in + size_ - taken_) % size_ >= bytes.size(), "an answer that was sent is there");
    from_host_.CopyOut(taken_, bytes);
    const std::span<const std::byte> all = bytes;
    const uint64_t units = bytes.size() / 8 - 1;  // without the trailer
    Require(NumberOf(all.first(8)) == (6 | 2 << 16 | units << 32), "its descriptor");
    Require(NumberOf(all.subspan(8, 8)) == 0, "a pipe uses no transaction ids");
    Require(NumberOf(all.subspan(16, 8)) == (1 | answer.size() << 32), "its pipe header");
    Require(std::ranges::equal(all.subspan(24, answer.size()), answer), "its bytes");
    Require(NumberOf(all.last(8)) == uint64_t{taken_} << 32, "its trailer");
    taken_ = static_cast<uint32_t>((taken_ + bytes.size()) % size_);
  }

  ChannelPair pair_;
  RingMemory to_host_;
  RingMemory from_host_;
  const uint32_t size_;
  uint32_t in_ = 0;                             // the guest's write index
  uint32_t taken_ = 0;                          // its read index
  std::deque<std::vector<std::byte>> answers_;  // sent and not taken
};

}  // namespace vmbfs::hyperv
