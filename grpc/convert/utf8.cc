#include "grpc/convert/utf8.h"

#include <algorithm>
#include <cstdint>

#include "core/log/escape.h"

namespace vmbfs::rpc {
namespace {

// The first byte of a sequence: its length, the bits it carries, and the
// smallest code point that may be written so long.
struct Lead {
  size_t length;
  uint32_t bits;
  uint32_t smallest;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, byte, 0};
  if ((byte & 0xe0) == 0xc0) return {2, byte & 0x1fu, 0x80};
  if ((byte & 0xf0) == 0xe0) return {3, byte & 0x0fu, 0x800};
  if ((byte & 0xf8) == 0xf0) return {4, byte & 0x07u, 0x10000};
  return {0, 0, 0};
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const Lead lead = LeadOf(static_cast<uint8_t>(text.front()));
    if (lead.length == 0 || lead.length > text.size()) return false;
    uint32_t point = lead.bits;
    for (size_t i = 1; i < lead.length; ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      if ((byte & 0xc0) != 0x80) return false;
      point = point << 6 | (byte & 0x3fu);
    }
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    if (point < lead.smallest || point > 0x10ffff || surrogate) return false;
    text.remove_prefix(lead.length);
  }
  return true;
}

}  // namespace

std::string ValidUtf8(std::string_view text, size_t bytes_max) {
  if (text.size() <= bytes_max && IsUtf8(text)) return std::string(text);
  return log::Escape(text, bytes_max);
}

}  // namespace vmbfs::rpc
