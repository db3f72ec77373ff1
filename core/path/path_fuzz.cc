// GuestPath against a plain resolver of its own: what is accepted, what it
// resolves to, and that a resolved path resolves to itself.
//
// Input: the path as it stands in a message.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/path/guest_path.h"
#include "core/path/windows_case.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs {
namespace {

using hyperv::Require;

bool IsHigh(char16_t unit) { return (unit & 0xFC00) == 0xD800; }
bool IsLow(char16_t unit) { return (unit & 0xFC00) == 0xDC00; }

struct Resolved {
  std::vector<std::u16string> pieces;
  bool above_root = false;
};

// shared/specs/vmbfs.md, "What a broken request gets" and "How real clients
// behave"; nullopt: refused.
std::optional<Resolved> Resolve(std::span<const std::byte> utf16le) {
  if (utf16le.size() % 2 != 0 || utf16le.size() / 2 > 4096) return std::nullopt;
  std::u16string units;
  for (size_t i = 0; i < utf16le.size(); i += 2) {
    units.push_back(static_cast<char16_t>(std::to_integer<unsigned>(utf16le[i]) +
                                          256 * std::to_integer<unsigned>(utf16le[i + 1])));
  }
  if (!units.empty() && units.back() == 0) units.pop_back();
  for (size_t i = 0; i < units.size(); ++i) {
    if (units[i] == 0) return std::nullopt;
    if (IsHigh(units[i]) && (i + 1 == units.size() || !IsLow(units[i + 1]))) return std::nullopt;
    if (IsLow(units[i]) && (i == 0 || !IsHigh(units[i - 1]))) return std::nullopt;
  }
  std::replace(units.begin(), units.end(), u'\\', u'/');
  units.push_back(u'/');
  Resolved resolved;
  for (size_t begin = 0; begin < units.size();) {
    const size_t end = units.find(u'/', begin);
    const std::u16string piece = units.substr(begin, end - begin);
    begin = end + 1;
    if (piece.size() > 255) return std::nullopt;
    if (piece.empty() || piece == u".") continue;
    if (piece != u"..") {
      resolved.pieces.push_back(piece);
    } else if (resolved.pieces.empty()) {
      resolved.above_root = true;  // and stays so: there is no way back in
    } else {
      resolved.pieces.pop_back();
    }
  }
  return resolved;
}

std::u16string Joined(const std::vector<std::u16string>& pieces) {
  std::u16string text;
  for (const std::u16string& piece : pieces) {
    if (!text.empty()) text += u'/';
    text += piece;
  }
  return text;
}

void CheckIdempotent(const GuestPath& path) {
  std::vector<std::byte> again;
  for (const char16_t unit : path.text()) {
    again.push_back(static_cast<std::byte>(unit & 0xFF));
    again.push_back(static_cast<std::byte>(unit >> 8));
  }
  const auto parsed = GuestPath::Parse(again);
  Require(parsed.ok() && !parsed->above_root() && parsed->text() == path.text(),
          "a resolved path resolves to itself");
  const auto from_utf8 = GuestPath::FromUtf8(Utf8FromUtf16(path.text()));
  Require(from_utf8.ok() && from_utf8->text() == path.text(), "it survives UTF-8");
}

// Names compare alike in both directions and regardless of letters' case.
void CheckNames(std::u16string_view text) {
  const std::u16string_view a = text.substr(0, text.size() / 2);
  const std::u16string_view b = text.substr(text.size() / 2);
  const auto sign = [](int value) { return (value > 0) - (value < 0); };
  Require(sign(CompareNames(a, b)) == -sign(CompareNames(b, a)), "comparison is antisymmetric");
  std::u16string other_case(text);
  for (char16_t& unit : other_case) {
    if ((unit >= u'a' && unit <= u'z') || (unit >= u'A' && unit <= u'Z')) unit ^= 0x20;
  }
  Require(CompareNames(text, other_case) == 0, "Latin letters compare without case");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const auto expected = Resolve(bytes);
  const auto path = GuestPath::Parse(bytes);
  Require(path.ok() == expected.has_value(), "accepted as the table says");
  if (!path.ok()) return 0;
  Require(path->above_root() == expected->above_root, "above the root or not");
  if (path->above_root()) {
    Require(!path->is_root(), "nothing above the root is the root");
    return 0;
  }
  Require(path->text() == Joined(expected->pieces), "resolved as the model does");
  Require(path->is_root() == expected->pieces.empty(), "the root has no pieces");
  CheckIdempotent(*path);
  CheckNames(path->text());
  return 0;
}

}  // namespace vmbfs
