// Messages for tests, written byte by byte and not by the code under test.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace vmbfs {

using Bytes = std::vector<std::byte>;

// Bytes from hexadecimal digits; spaces are skipped.
inline Bytes Hex(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  Bytes bytes;
  bool high = true;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) continue;
    if (high) {
      bytes.push_back(static_cast<std::byte>(digit << 4));
    } else {
      bytes.back() |= static_cast<std::byte>(digit);
    }
    high = !high;
  }
  return bytes;
}

inline Bytes LittleEndian(uint64_t value, size_t bytes) {
  Bytes out;
  for (size_t i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  return out;
}

inline Bytes Utf16(std::u16string_view text) {
  Bytes out;
  for (const char16_t unit : text) {
    out.push_back(static_cast<std::byte>(unit & 0xFF));
    out.push_back(static_cast<std::byte>(unit >> 8));
  }
  return out;
}

inline Bytes Join(std::initializer_list<Bytes> parts) {
  Bytes out;
  for (const Bytes& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

inline Bytes Header(uint32_t type) { return LittleEndian(type, 8); }

inline Bytes VersionBytes(uint32_t version = 0x00010000) {
  return Join({Header(1), LittleEndian(version, 4)});
}
inline Bytes InfoBytes(std::u16string_view path) { return Join({Header(3), Utf16(path)}); }
inline Bytes ReadBytes(uint32_t count, uint64_t offset, std::u16string_view path) {
  return Join({Header(5), LittleEndian(count, 4), LittleEndian(offset, 8), Utf16(path)});
}
inline Bytes RdmaBytes(uint32_t handle, uint32_t count, uint64_t offset, uint64_t token_offset,
                       std::u16string_view path) {
  return Join({Header(7), LittleEndian(handle, 4), LittleEndian(count, 4), LittleEndian(offset, 8),
               LittleEndian(token_offset, 8), Utf16(path)});
}

// The answers of a vmbfs host, whole.
inline Bytes VersionAnswer(uint32_t status) { return Join({Header(2), LittleEndian(status, 4)}); }
inline Bytes InfoAnswer(uint32_t status, uint32_t flags, uint64_t size) {
  return Join({Header(4), LittleEndian(status, 4), LittleEndian(flags, 4), LittleEndian(size, 8)});
}
inline Bytes ReadAnswerBytes(uint32_t status, const Bytes& data = {}) {
  return Join({Header(6), LittleEndian(status, 4), data});
}
inline Bytes RdmaAnswer(uint32_t status, uint32_t count) {
  return Join({Header(8), LittleEndian(status, 4), LittleEndian(count, 4)});
}

}  // namespace vmbfs
