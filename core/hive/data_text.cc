// A value's type and data for people.

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/hive/explain.h"
#include "core/hive/value_data.h"
#include "core/path/guest_path.h"

namespace vmbfs::hive {
namespace {

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

std::string NameText(std::u16string_view name) { return EscapedText(name); }

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
