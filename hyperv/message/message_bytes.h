// Messages for tests, put together by offset: independent of the structures
// under test.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "hyperv/guid/guid.h"

namespace vmbfs::hyperv {

class MessageBytes {
 public:
  // `size` bytes of zeros with `type` at the front.
  MessageBytes(uint32_t type, size_t size) : bytes_(size) { U32(0, type); }

  // Hexadecimal digits in pairs; spaces do not count.
  static std::vector<std::byte> FromHex(std::string_view text) {
    std::vector<std::byte> bytes;
    int high = -1;
    for (const char c : text) {
      if (c == ' ') continue;
      const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
      if (high < 0) {
        high = digit;
      } else {
        bytes.push_back(static_cast<std::byte>(high * 16 + digit));
        high = -1;
      }
    }
    return bytes;
  }

  MessageBytes& U8(size_t offset, uint8_t value) { return Put(offset, value, 1); }
  MessageBytes& U16(size_t offset, uint16_t value) { return Put(offset, value, 2); }
  MessageBytes& U32(size_t offset, uint32_t value) { return Put(offset, value, 4); }
  MessageBytes& U64(size_t offset, uint64_t value) { return Put(offset, value, 8); }
  MessageBytes& Put(size_t offset, const Guid& guid) {
    for (size_t i = 0; i < guid.bytes.size(); ++i) bytes_.at(offset + i) = guid.bytes[i];
    return *this;
  }

  operator std::span<const std::byte>() const { return bytes_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  MessageBytes& Put(size_t offset, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      bytes_.at(offset + i) = static_cast<std::byte>((value >> (8 * i)) & 0xFF);
    }
    return *this;
  }

  std::vector<std::byte> bytes_;
};

// A little-endian number within a message.
inline uint64_t NumberAt(std::span<const std::byte> bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) {
    value |= std::to_integer<uint64_t>(bytes[offset + i]) << (8 * i);
  }
  return value;
}

}  // namespace vmbfs::hyperv
