#include "core/hive/text_decoding.h"

#include <cstdint>
#include <optional>
#include <utility>

#include "core/hive/utf16.h"

namespace vmbfs::hive {
namespace {

bool StartsWith(std::span<const std::byte> bytes, std::initializer_list<uint8_t> mark) {
  if (bytes.size() < mark.size()) return false;
  size_t i = 0;
  for (const uint8_t expected : mark) {
    if (std::to_integer<uint8_t>(bytes[i++]) != expected) return false;
  }
  return true;
}

absl::StatusOr<std::u16string> DecodeUtf16(std::span<const std::byte> bytes) {
  std::optional<std::u16string> text = UnitsFromBytes(bytes);
  if (text.has_value()) return *std::move(text);
  return absl::InvalidArgumentError("the file is UTF-16 and has an odd number of bytes");
}

absl::StatusOr<std::u16string> DecodeUtf8(std::span<const std::byte> bytes) {
  std::optional<std::u16string> text =
      UnitsFromUtf8({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (text.has_value()) return *std::move(text);
  return absl::InvalidArgumentError("the file is neither UTF-8 nor UTF-16 with a mark");
}

}  // namespace

absl::StatusOr<std::u16string> DecodeText(std::span<const std::byte> bytes) {
  if (StartsWith(bytes, {0xFF, 0xFE})) return DecodeUtf16(bytes.subspan(2));
  if (StartsWith(bytes, {0xFE, 0xFF})) {
    return absl::InvalidArgumentError("the file is big-endian UTF-16; save it as little-endian");
  }
  return DecodeUtf8(StartsWith(bytes, {0xEF, 0xBB, 0xBF}) ? bytes.subspan(3) : bytes);
}

}  // namespace vmbfs::hive
