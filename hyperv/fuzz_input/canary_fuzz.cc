// A fuzz target with a bug on purpose: tools/fuzz runs it first, and fails when
// the alarm does not ring. Its corpus stays clear of the bug.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "hyperv/fuzz_input/fuzz_input.h"

namespace {

constexpr std::array kMagic = {std::byte{'T'}, std::byte{'W'}, std::byte{'E'}, std::byte{'E'}};

// A parser that trusts the length behind its magic.
std::byte LastByte(const std::byte* buffer, size_t claimed_bytes) { return buffer[claimed_bytes]; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vmbfs::hyperv::FuzzInput input(data, size);
  const auto buffer = std::make_unique<std::byte[]>(kMagic.size());
  const auto magic = input.Bytes(kMagic.size());
  std::copy(magic.begin(), magic.end(), buffer.get());
  // Byte by byte, so that the way there can be found step by step.
  for (size_t i = 0; i < kMagic.size(); ++i) {
    if (buffer[i] != kMagic[i]) return 0;
  }
  volatile std::byte seen = LastByte(buffer.get(), kMagic.size());
  static_cast<void>(seen);
  return 0;
}
