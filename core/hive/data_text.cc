#include "core/hive/data_text.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "core/hive/value_data.h"
#include "core/path/guest_path.h"

namespace vmbfs::hive {
namespace {

constexpr std::u16string_view kHexDigits = u"0123456789abcdef";
constexpr size_t kPathBytesShownMax = 512;
constexpr size_t kBytesShownMax = 64;
constexpr size_t kUnitsShownMax = 1024;

std::string QuotedText(std::u16string_view text) {
  const bool cut = text.size() > kUnitsShownMax;
  return absl::StrCat("\"", EscapedText(text.substr(0, kUnitsShownMax)), "\"", cut ? " …" : "");
}

std::string BytesText(const RegistryValue& value) {
  std::string text = absl::StrCat(value.data.size(), value.data.size() == 1 ? " byte" : " bytes");
  const size_t shown = std::min(value.data.size(), kBytesShownMax);
  for (size_t i = 0; i < shown; ++i) {
    absl::StrAppend(&text, i == 0 ? ": " : " ",
                    absl::Hex(std::to_integer<unsigned>(value.data[i]), absl::kZeroPad2));
  }
  if (shown < value.data.size()) text += " …";
  return text;
}

}  // namespace

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

std::string GivenPathText(std::u16string_view path) {
  return absl::StrCat(EscapedText(path.substr(0, kPathBytesShownMax)),
                      path.size() > kPathBytesShownMax ? "…" : "");
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

std::string TypeText(ValueType type) {
  static constexpr std::array<const char*, 12> kNames = {"REG_NONE",
                                                         "REG_SZ",
                                                         "REG_EXPAND_SZ",
                                                         "REG_BINARY",
                                                         "REG_DWORD",
                                                         "REG_DWORD_BIG_ENDIAN",
                                                         "REG_LINK",
                                                         "REG_MULTI_SZ",
                                                         "REG_RESOURCE_LIST",
                                                         "REG_FULL_RESOURCE_DESCRIPTOR",
                                                         "REG_RESOURCE_REQUIREMENTS_LIST",
                                                         "REG_QWORD"};
  const auto number = static_cast<uint32_t>(type);
  return number < kNames.size() ? kNames[number] : absl::StrCat("type 0x", absl::Hex(number));
}

std::string DataText(const RegistryValue& value) {
  if (const auto number = NumberOf(value); number.has_value()) {
    return *number < 10 ? absl::StrCat(*number)
                        : absl::StrCat(*number, " (0x", absl::Hex(*number), ")");
  }
  if (const auto text = StringOf(value); text.has_value()) return QuotedText(*text);
  if (const auto list = StringsOf(value); list.has_value()) {
    std::string text = "[";
    for (const std::u16string& each : *list) {
      absl::StrAppend(&text, text.size() > 1 ? ", " : "", QuotedText(each));
    }
    return text + "]";
  }
  return BytesText(value);
}

}  // namespace vmbfs::hive
