// A ring as the model of ring_fuzz sees it: the same memory, read by rules that are
// written once more.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/packet/packet.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

inline uint64_t NumberOf(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i)
    value = value << 8 | std::to_integer<uint64_t>(bytes[i - 1]);
  return value;
}

// shared/specs/vmbus.md 4.1 to 4.4.
class RingView {
 public:
  explicit RingView(RingMemory memory)
      : memory_(std::move(memory)), data_bytes_(memory_.data_bytes()) {}

  RingMemory& memory() { return memory_; }
  uint32_t data_bytes() const { return data_bytes_; }
  uint32_t Word(ControlWord word) const { return memory_.Load(word, std::memory_order_relaxed); }
  bool IsIndex(uint32_t value) const { return value < data_bytes_ && value % 8 == 0; }
  uint32_t Wrap(size_t offset) const { return static_cast<uint32_t>(offset % data_bytes_); }
  uint32_t Used(uint32_t in, uint32_t out) const { return Wrap(size_t{in} + data_bytes_ - out); }
  uint32_t Free(uint32_t in, uint32_t out) const { return data_bytes_ - Used(in, out) - 8; }
  // What a packet with this payload takes.
  static size_t RingBytes(size_t payload_bytes) { return 16 + (payload_bytes + 7) / 8 * 8 + 8; }
  std::vector<std::byte> Data(uint32_t offset, size_t bytes) const {
    std::vector<std::byte> data(bytes);
    memory_.CopyOut(offset, data);
    return data;
  }

  // The packet at `at` of a ring whose `in` is `in`; an error where the bytes there
  // are none.
  absl::StatusOr<PacketView> PacketAt(uint32_t at, uint32_t in) const {
    const uint64_t available = Used(in, at);
    const absl::Status broken = absl::InvalidArgumentError("");
    if (available < 24) return broken;
    const std::vector<std::byte> head = Data(at, 24);
    const std::span<const std::byte> bytes = head;
    const uint64_t type = NumberOf(bytes.first(2));
    const uint64_t offset = NumberOf(bytes.subspan(2, 2)) * 8;
    const uint64_t length = NumberOf(bytes.subspan(4, 2)) * 8;
    const uint64_t flags = NumberOf(bytes.subspan(6, 2));
    const uint64_t range_count = NumberOf(bytes.subspan(20, 4));
    const bool has_ranges = type == 7 || type == 9;
    if ((type != 6 && type != 0xB && !has_ranges) || flags > 1) return broken;
    if (offset < (has_ranges ? 24 : 16) || length < offset || length + 8 > available) return broken;
    if (type == 7 && range_count * 8 != offset - 24) return broken;
    if (type == 9 && (range_count == 0 || range_count * 16 > offset - 24)) return broken;
    return PacketView{.type = static_cast<PacketType>(type),
                      .completion_requested = flags == 1,
                      .transaction_id = NumberOf(bytes.subspan(8, 8)),
                      .payload_offset_bytes = static_cast<uint32_t>(offset),
                      .payload_bytes = static_cast<uint32_t>(length - offset),
                      .ring_bytes = static_cast<uint32_t>(length + 8)};
  }

 private:
  RingMemory memory_;
  const uint32_t data_bytes_;
};

}  // namespace vmbfs::hyperv
