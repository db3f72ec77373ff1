#include "tests/conformance/bytes.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::conformance {

void Put(std::span<std::byte> bytes, size_t offset, size_t width, uint64_t value) {
  for (std::byte& byte : bytes.subspan(offset, width)) {
    byte = static_cast<std::byte>(value & 0xFF);
    value >>= 8;
  }
}

uint64_t Get(ByteView bytes, size_t offset, size_t width) {
  uint64_t value = 0;
  for (size_t index = 0; index < width && offset + index < bytes.size(); ++index) {
    value |= std::to_integer<uint64_t>(bytes[offset + index]) << (8 * index);
  }
  return value;
}

uint32_t Get32(ByteView bytes, size_t offset) {
  return static_cast<uint32_t>(Get(bytes, offset, 4));
}

void Append(Bytes& bytes, ByteView more) { bytes.insert(bytes.end(), more.begin(), more.end()); }

Bytes FromHex(std::string_view hex) {
  std::string digits(hex);
  std::erase_if(digits, [](char each) { return each == ' ' || each == '\n'; });
  const std::string text = absl::HexStringToBytes(digits);
  const ByteView view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

std::string ToHex(ByteView bytes) {
  constexpr size_t kShown = 64;
  const ByteView shown = bytes.first(std::min(bytes.size(), kShown));
  std::string text;
  for (const std::byte each : shown) {
    absl::StrAppend(&text, absl::Hex(std::to_integer<unsigned>(each), absl::kZeroPad2));
  }
  return shown.size() == bytes.size() ? text : absl::StrCat(text, "... of ", bytes.size());
}

bool AllZero(ByteView bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte each) { return each == std::byte{}; });
}

}  // namespace vmbfs::conformance
