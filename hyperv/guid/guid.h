// GUIDs in the form VMBus carries them: 16 bytes, Microsoft's mixed-endian order.
// Format: shared/specs/vmbus.md section 0.

#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace vmbfs::hyperv {

// A GUID as its 16 wire bytes. The default one is all zeros.
//
// Thread safety: a value.
struct Guid {
  static constexpr size_t kTextBytes = 36;

  std::array<std::byte, 16> bytes{};

  // From "c376c1c3-d276-48d2-90a9-c04748072c60", digits in either case and no
  // braces; nullopt for anything else.
  static constexpr std::optional<Guid> Parse(std::string_view text);

  // The same for constants in the source; a malformed one does not compile.
  static consteval Guid FromLiteral(std::string_view text);

  // In lower case, as Parse reads it.
  std::string ToString() const;

  friend constexpr bool operator==(const Guid&, const Guid&) = default;
  // The order of the wire bytes, for containers.
  friend constexpr auto operator<=>(const Guid&, const Guid&) = default;

  template <typename H>
  friend H AbslHashValue(H state, const Guid& guid) {
    return H::combine(std::move(state), guid.bytes);
  }
};

namespace guid_internal {

// Where in the wire form each byte of the text goes: the first three groups
// are little-endian numbers, the last two are bytes as printed.
inline constexpr std::array<size_t, 16> kWireIndexOfTextByte = {3, 2, 1,  0,  5,  4,  7,  6,
                                                                8, 9, 10, 11, 12, 13, 14, 15};

constexpr bool IsDash(size_t text_index) {
  return text_index == 8 || text_index == 13 || text_index == 18 || text_index == 23;
}

constexpr int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace guid_internal

constexpr std::optional<Guid> Guid::Parse(std::string_view text) {
  if (text.size() != kTextBytes) return std::nullopt;
  Guid guid;
  size_t text_byte = 0;
  for (size_t i = 0; i < kTextBytes;) {
    if (guid_internal::IsDash(i)) {
      if (text[i] != '-') return std::nullopt;
      ++i;
      continue;
    }
    const int high = guid_internal::HexDigit(text[i]);
    const int low = guid_internal::HexDigit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    guid.bytes[guid_internal::kWireIndexOfTextByte[text_byte++]] =
        static_cast<std::byte>(high * 16 + low);
    i += 2;
  }
  return guid;
}

consteval Guid Guid::FromLiteral(std::string_view text) { return Parse(text).value(); }

}  // namespace vmbfs::hyperv
