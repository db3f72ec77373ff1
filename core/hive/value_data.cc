#include "core/hive/value_data.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/path/guest_path.h"

namespace vmbfs::hive {
namespace {

constexpr std::u16string_view kHexDigits = u"0123456789abcdef";
constexpr size_t kPathBytesShownMax = 512;

std::optional<std::u16string> Units(const RegistryValue& value) {
  if (value.data.size() % sizeof(char16_t) != 0) return std::nullopt;
  std::u16string text;
  text.reserve(value.data.size() / sizeof(char16_t));
  for (size_t i = 0; i < value.data.size(); i += sizeof(char16_t)) {
    text.push_back(static_cast<char16_t>(std::to_integer<unsigned>(value.data[i]) |
                                         std::to_integer<unsigned>(value.data[i + 1]) << 8));
  }
  return text;
}

}  // namespace

std::optional<uint64_t> NumberOf(const RegistryValue& value) {
  const bool big_endian = value.type == ValueType::kDwordBigEndian;
  size_t bytes = 0;
  if (value.type == ValueType::kDword || big_endian) bytes = 4;
  if (value.type == ValueType::kQword) bytes = 8;
  if (bytes == 0 || value.data.size() != bytes) return std::nullopt;
  uint64_t number = 0;
  for (size_t i = 0; i < bytes; ++i) {
    number = number << 8 | std::to_integer<uint64_t>(value.data[big_endian ? i : bytes - 1 - i]);
  }
  return number;
}

std::optional<std::u16string> StringOf(const RegistryValue& value) {
  if (value.type != ValueType::kString && value.type != ValueType::kExpandString) {
    return std::nullopt;
  }
  std::optional<std::u16string> text = Units(value);
  if (!text.has_value() || text->empty() || text->find(u'\0') != text->size() - 1) {
    return std::nullopt;
  }
  text->pop_back();
  return text;
}

std::optional<std::vector<std::u16string>> StringsOf(const RegistryValue& value) {
  if (value.type != ValueType::kMultiString) return std::nullopt;
  const std::optional<std::u16string> text = Units(value);
  if (!text.has_value() || text->empty() || text->back() != u'\0') return std::nullopt;
  std::vector<std::u16string> strings;
  for (size_t start = 0; start + 1 < text->size();) {
    const size_t end = text->find(u'\0', start);
    if (end == start || end + 1 == text->size()) return std::nullopt;
    strings.push_back(text->substr(start, end - start));
    start = end + 1;
  }
  return strings;
}

std::string EscapedText(std::u16string_view text) {
  std::u16string escaped;
  for (const char16_t unit : text) {
    if (unit < 0x20 || (unit >= 0x7F && unit < 0xA0)) {
      escaped += u"\\x";
      escaped.push_back(kHexDigits[unit >> 4]);
      escaped.push_back(kHexDigits[unit & 0xF]);
    } else {
      escaped.push_back(unit);
    }
  }
  return Utf8FromUtf16(escaped);
}

std::string KeyPathText(const RegistryTree& tree, RegistryTree::KeyId key) {
  std::string path;
  for (; key != RegistryTree::kRoot; key = tree.key(key).parent) {
    if (path.size() > kPathBytesShownMax) return absl::StrCat("…\\", path);
    path = absl::StrCat(EscapedText(tree.key(key).name), path.empty() ? "" : "\\", path);
  }
  return path;
}

std::string ValuePathText(const RegistryTree& tree, RegistryTree::KeyId key,
                          const RegistryValue& value) {
  const std::string path = KeyPathText(tree, key);
  return absl::StrCat(path, path.empty() ? "" : "\\",
                      value.name.empty() ? "(default)" : EscapedText(value.name));
}

}  // namespace vmbfs::hive
