// What a hostile peer of ring_fuzz writes over: control words, the descriptor that
// is read next (at `read_at`), and bytes anywhere.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/ring/ring_fuzz_view.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

inline void OverwriteWord(FuzzInput& input, RingView& view, uint32_t read_at) {
  static constexpr std::array kWords = {ControlWord::kIn, ControlWord::kOut,
                                        ControlWord::kInterruptMask, ControlWord::kPendingSendSize,
                                        ControlWord::kFeatureBits};
  const ControlWord word = kWords[input.Below(5)];
  uint32_t value = input.U16();
  switch (input.Below(4)) {
    case 0:
      value |= uint32_t{input.U16()} << 16;
      break;
    case 1:
      value = view.Wrap(value * 8);
      break;
    case 2:
      value = view.Wrap(read_at + value % 64 * 8);
      break;
    default:
      break;
  }
  view.memory().Store(word, value, std::memory_order_relaxed);
}

inline void OverwriteDescriptor(FuzzInput& input, RingView& view, uint32_t read_at) {
  static constexpr std::array<uint16_t, 4> kTypes = {6, 7, 9, 0xB};
  const bool known = !input.OneIn(8);
  const uint16_t type = known ? kTypes[input.Below(4)] : input.U8();
  const auto offset = static_cast<uint16_t>(input.U8() % 16);
  const auto length = static_cast<uint16_t>(input.OneIn(4) ? input.U16() : input.U8() % 64);
  const auto flags = static_cast<uint16_t>(input.OneIn(8) ? input.U16() : input.U8() % 2);
  std::array<std::byte, 24> bytes{};
  size_t at = 0;
  for (const uint16_t field : {type, offset, length, flags}) {
    bytes[at++] = static_cast<std::byte>(field & 0xFF);
    bytes[at++] = static_cast<std::byte>(field >> 8);
  }
  bytes[20] = static_cast<std::byte>(input.U8() % 8);
  view.memory().CopyIn(read_at, bytes);
}

inline void OverwriteData(FuzzInput& input, RingView& view) {
  const uint32_t offset = view.Wrap(input.U16());
  view.memory().CopyIn(offset, input.Bytes(input.U8() % 64));
}

}  // namespace vmbfs::hyperv
