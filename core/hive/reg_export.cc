// Trees of keys as `.reg` text.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/hive/reg_file.h"
#include "core/path/guest_path.h"

namespace vmbfs::hive {
namespace {

constexpr size_t kBytesOfALine = 24;

std::string Quoted(std::u16string_view text) {
  std::u16string escaped;
  for (const char16_t unit : text) {
    if (unit == u'\\' || unit == u'"') escaped.push_back(u'\\');
    escaped.push_back(unit);
  }
  return absl::StrCat("\"", Utf8FromUtf16(escaped), "\"");
}

// A line carries it: it holds no line end, and nothing that has no UTF-8.
bool FitsALine(std::u16string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == u'\n' || text[i] == u'\r') return false;
    const bool high = text[i] >= 0xD800 && text[i] < 0xDC00;
    const bool low = text[i] >= 0xDC00 && text[i] < 0xE000;
    const bool pair = high && i + 1 < text.size() && text[i + 1] >= 0xDC00 && text[i + 1] < 0xE000;
    if (low || (high && !pair)) return false;
    if (pair) ++i;
  }
  return true;
}

// The text of a string that the quoted form can carry: it ends with its only NUL.
std::optional<std::u16string> PlainText(const RegistryValue& value) {
  if (value.type != ValueType::kString || value.data.size() % 2 != 0 || value.data.empty()) {
    return std::nullopt;
  }
  std::u16string text;
  for (size_t i = 0; i < value.data.size(); i += 2) {
    text.push_back(static_cast<char16_t>(std::to_integer<unsigned>(value.data[i]) |
                                         std::to_integer<unsigned>(value.data[i + 1]) << 8));
  }
  const size_t end = text.find(u'\0');
  if (end != text.size() - 1) return std::nullopt;
  text.pop_back();
  if (!FitsALine(text)) return std::nullopt;
  return text;
}

std::string Hex(const RegistryValue& value) {
  std::string text = "hex";
  if (value.type != ValueType::kBinary) {
    absl::StrAppend(&text, "(", absl::Hex(static_cast<uint32_t>(value.type)), ")");
  }
  text += ':';
  for (size_t i = 0; i < value.data.size(); ++i) {
    if (i > 0) text += i % kBytesOfALine == 0 ? ",\\\n  " : ",";
    absl::StrAppend(&text, absl::Hex(std::to_integer<unsigned>(value.data[i]), absl::kZeroPad2));
  }
  return text;
}

std::string DataText(const RegistryValue& value) {
  if (const auto text = PlainText(value); text.has_value()) return Quoted(*text);
  if (value.type == ValueType::kDword && value.data.size() == 4) {
    uint32_t number = 0;
    for (size_t i = 4; i > 0; --i) {
      number = number << 8 | std::to_integer<uint32_t>(value.data[i - 1]);
    }
    return absl::StrCat("dword:", absl::Hex(number, absl::kZeroPad8));
  }
  return Hex(value);
}

}  // namespace

std::string RegFileOf(const RegistryTree& tree) {
  std::string text = "Windows Registry Editor Version 5.00\n";
  std::vector<RegistryTree::KeyId> waiting = {RegistryTree::kRoot};
  while (!waiting.empty()) {
    const RegistryTree::KeyId id = waiting.back();
    waiting.pop_back();
    const std::vector<RegistryTree::KeyId> subkeys = tree.SortedSubkeys(id);
    waiting.insert(waiting.end(), subkeys.rbegin(), subkeys.rend());
    if (id == RegistryTree::kRoot) continue;
    const RegistryTree::Key& key = tree.key(id);
    // A key with subkeys alone comes with them.
    if (key.values.empty() && !subkeys.empty()) continue;
    if (!FitsALine(key.name)) {
      text += "\n; a key is left out: its name does not fit a line\n";
      continue;
    }
    absl::StrAppend(&text, "\n[HKEY_LOCAL_MACHINE\\", tree.PathText(id), "]\n");
    for (const RegistryValue& value : key.values) {
      if (!FitsALine(value.name)) {
        text += "; a value is left out: its name does not fit a line\n";
        continue;
      }
      absl::StrAppend(&text, value.name.empty() ? "@" : Quoted(value.name), "=", DataText(value),
                      "\n");
    }
  }
  return text;
}

}  // namespace vmbfs::hive
