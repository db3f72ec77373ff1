// The control page of a VMBus ring. Format: shared/specs/vmbus.md section 4.1.
//
// A ring is one control page and then the data area. An index is a byte offset
// into the data area: a multiple of 8 below the area's size. The ring is empty
// when both are equal; 8 bytes always stay free.

#pragma once

#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Little-endian 32-bit words, by their offset in the control page.
enum class ControlWord : size_t {
  kIn = 0,                // where the producer writes next; the producer's
  kOut = 4,               // where the consumer reads next; the consumer's
  kInterruptMask = 8,     // 1: do not signal the consumer; the consumer's
  kPendingSendSize = 12,  // free bytes the producer waits for, 0: none; the producer's
  kFeatureBits = 64,      // the producer's
};

// The producer of this ring, as the consumer of the other one, signals when
// that one's producer waits for space.
inline constexpr uint32_t kRingFeaturePendingSendSize = 0x1;

// Indices, and the sizes of packets, are multiples of this.
inline constexpr size_t kRingUnitBytes = 8;

inline constexpr size_t kRingPagesMin = 2;
// One GPADL holds at most so many pages.
inline constexpr size_t kRingPagesMax = 8190;

constexpr bool IsRingIndex(uint32_t guest_index, uint32_t data_bytes) {
  return guest_index < data_bytes && guest_index % kRingUnitBytes == 0;
}

constexpr uint32_t RoundDownToRingUnit(uint32_t bytes) {
  return bytes & ~static_cast<uint32_t>(kRingUnitBytes - 1);
}

// The offset `bytes` behind `index`, around the end of the data area.
// REQUIRES: index < data_bytes, bytes <= data_bytes.
constexpr uint32_t RingOffset(uint32_t index, size_t bytes, uint32_t data_bytes) {
  const size_t offset = index + bytes;
  return static_cast<uint32_t>(offset < data_bytes ? offset : offset - data_bytes);
}

// Bytes between `out` and `in`, and what is left to the producer.
// REQUIRES: both are below `data_bytes`.
constexpr uint32_t RingUsedBytes(uint32_t in, uint32_t out, uint32_t data_bytes) {
  return in >= out ? in - out : data_bytes - out + in;
}
constexpr uint32_t RingFreeBytes(uint32_t in, uint32_t out, uint32_t data_bytes) {
  return data_bytes - RingUsedBytes(in, out, data_bytes) - static_cast<uint32_t>(kRingUnitBytes);
}

}  // namespace vmbfs::hyperv
