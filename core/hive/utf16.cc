#include "core/hive/utf16.h"

#include <unicode/ustring.h>

#include <cstdint>
#include <limits>

namespace vmbfs::hive {
namespace {

constexpr bool IsHighSurrogate(char16_t unit) { return (unit & 0xFC00) == 0xD800; }
constexpr bool IsLowSurrogate(char16_t unit) { return (unit & 0xFC00) == 0xDC00; }

}  // namespace

std::optional<std::u16string> UnitsFromBytes(std::span<const std::byte> bytes) {
  if (bytes.size() % sizeof(char16_t) != 0) return std::nullopt;
  std::u16string units;
  units.reserve(bytes.size() / sizeof(char16_t));
  for (size_t i = 0; i < bytes.size(); i += sizeof(char16_t)) {
    units.push_back(static_cast<char16_t>(std::to_integer<unsigned>(bytes[i]) |
                                          std::to_integer<unsigned>(bytes[i + 1]) << 8));
  }
  return units;
}

std::optional<std::u16string> UnitsFromUtf8(std::string_view text) {
  if (text.size() > std::numeric_limits<int32_t>::max()) return std::nullopt;
  std::u16string units(text.size(), u'\0');
  int32_t count = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strFromUTF8(units.data(), static_cast<int32_t>(units.size()), &count, text.data(),
                static_cast<int32_t>(text.size()), &error);
  if (U_FAILURE(error)) return std::nullopt;
  units.resize(static_cast<size_t>(count));
  return units;
}

std::vector<std::byte> BytesFromUnits(std::u16string_view units) {
  std::vector<std::byte> bytes;
  bytes.reserve(units.size() * sizeof(char16_t));
  for (const char16_t unit : units) {
    bytes.push_back(static_cast<std::byte>(unit & 0xFF));
    bytes.push_back(static_cast<std::byte>(unit >> 8));
  }
  return bytes;
}

bool IsUnicode(std::u16string_view units) {
  for (size_t i = 0; i < units.size(); ++i) {
    if (IsLowSurrogate(units[i])) return false;
    if (!IsHighSurrogate(units[i])) continue;
    if (++i == units.size() || !IsLowSurrogate(units[i])) return false;
  }
  return true;
}

}  // namespace vmbfs::hive
