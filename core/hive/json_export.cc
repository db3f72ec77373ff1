// Trees of keys in the compact form of JSON.

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/hive/json_file.h"
#include "core/hive/utf16.h"
#include "core/hive/value_data.h"
#include "core/path/guest_path.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

constexpr size_t kTextBytesMax = size_t{256} << 20;

// A JSON string. Control characters, and halves of surrogate pairs, which have
// no UTF-8, are escaped; a name of such a half is not taken back as an input.
std::string Quoted(std::u16string_view text) {
  const bool is_unicode = IsUnicode(text);
  std::u16string escaped;
  for (const char16_t unit : text) {
    const bool surrogate = (unit & 0xF800) == 0xD800;
    if (unit == u'"' || unit == u'\\') {
      escaped.push_back(u'\\');
      escaped.push_back(unit);
    } else if (unit < 0x20 || (unit >= 0x7F && unit < 0xA0) || (surrogate && !is_unicode)) {
      const std::string digits = absl::StrCat("\\u", absl::Hex(unit, absl::kZeroPad4));
      escaped.append(digits.begin(), digits.end());
    } else {
      escaped.push_back(unit);
    }
  }
  return absl::StrCat("\"", Utf8FromUtf16(escaped), "\"");
}

std::string HexText(const RegistryValue& value) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(value.data.data()), value.data.size()));
}

// [A, B]; nullopt: one of them has no UTF-8.
std::optional<std::string> ListText(const RegistryValue& value) {
  const auto strings = StringsOf(value);
  if (!strings.has_value()) return std::nullopt;
  std::string list = "[";
  for (const std::u16string& each : *strings) {
    if (!IsUnicode(each)) return std::nullopt;
    absl::StrAppend(&list, list.size() > 1 ? ", " : "", Quoted(each));
  }
  return list + "]";
}

// {"dword": 2}; by number and bytes where the data does not fit the type.
std::string DataObject(const RegistryValue& value) {
  if (const auto text = StringOf(value); text.has_value() && IsUnicode(*text)) {
    return absl::StrCat(
        value.type == ValueType::kString ? "{\"sz\": " : "{\"expand\": ", Quoted(*text), "}");
  }
  if (const auto list = ListText(value); list.has_value()) {
    return absl::StrCat("{\"multi\": ", *list, "}");
  }
  if (const auto number = NumberOf(value); number.has_value()) {
    if (value.type == ValueType::kDword) return absl::StrCat("{\"dword\": ", *number, "}");
    if (value.type == ValueType::kQword) return absl::StrCat("{\"qword\": ", *number, "}");
  }
  if (value.type == ValueType::kBinary)
    return absl::StrCat("{\"binary\": \"", HexText(value), "\"}");
  return absl::StrCat("{\"type\": ", static_cast<uint32_t>(value.type), ", \"hex\": \"",
                      HexText(value), "\"}");
}

// The hive's number, when it is the only value of the root.
std::optional<uint64_t> SequenceOf(const RegistryTree& tree) {
  const auto& values = tree.key(RegistryTree::kRoot).values;
  if (values.size() != 1 || CompareNames(values.front().name, u"Sequence") != 0 ||
      values.front().type != ValueType::kDword) {
    return std::nullopt;
  }
  return NumberOf(values.front());
}

}  // namespace

absl::StatusOr<std::string> JsonFileOf(const RegistryTree& tree) {
  const std::optional<uint64_t> sequence = SequenceOf(tree);
  std::string text = "{\n";
  if (sequence.has_value()) absl::StrAppend(&text, "  \"sequence\": ", *sequence, ",\n");
  text += "  \"keys\": {";
  bool first_key = true;
  for (const RegistryTree::KeyId id : tree.KeysInOrder()) {
    const RegistryTree::Key& key = tree.key(id);
    const bool root = id == RegistryTree::kRoot;
    if (root && (sequence.has_value() || key.values.empty())) continue;
    // A key with subkeys alone comes with them.
    if (key.values.empty() && !key.subkeys.empty()) continue;
    absl::StrAppend(&text, first_key ? "\n    " : ",\n    ", Quoted(tree.Path(id)), ": {");
    first_key = false;
    bool first_value = true;
    for (const RegistryValue& value : key.values) {
      absl::StrAppend(&text, first_value ? "\n      " : ",\n      ", Quoted(value.name), ": ",
                      DataObject(value));
      first_value = false;
    }
    text += first_value ? "}" : "\n    }";
    if (text.size() > kTextBytesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the hive as text has more than ", kTextBytesMax, " bytes"));
    }
  }
  text += first_key ? "}\n}\n" : "\n  }\n}\n";
  return text;
}

}  // namespace vmbfs::hive
