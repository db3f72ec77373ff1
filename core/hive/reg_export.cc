// Trees of keys as `.reg` text.

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/hive/reg_file.h"
#include "core/hive/reg_text.h"
#include "core/hive/utf16.h"
#include "core/hive/value_data.h"
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
  return text.find_first_of(u"\r\n") == text.npos && IsUnicode(text);
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

std::string RegData(const RegistryValue& value) {
  if (value.type == ValueType::kString) {
    if (const auto text = StringOf(value); text.has_value() && FitsALine(*text)) {
      return Quoted(*text);
    }
  }
  if (value.type == ValueType::kDword) {
    if (const auto number = NumberOf(value); number.has_value()) {
      return absl::StrCat("dword:", absl::Hex(*number, absl::kZeroPad8));
    }
  }
  return Hex(value);
}

}  // namespace

bool PathFitsALine(const RegistryTree& tree, RegistryTree::KeyId id) {
  for (; id != RegistryTree::kRoot; id = tree.key(id).parent) {
    if (!FitsALine(tree.key(id).name)) return false;
  }
  return true;
}

std::string RegKeyLine(const RegistryTree& tree, RegistryTree::KeyId id, bool deletion) {
  if (!PathFitsALine(tree, id)) return "; a key is left out: its name does not fit a line";
  return absl::StrCat(deletion ? "[-" : "[", "HKEY_LOCAL_MACHINE\\", tree.PathText(id), "]");
}

std::string RegValueLine(const RegistryValue& value, bool deletion) {
  if (!FitsALine(value.name)) return "; a value is left out: its name does not fit a line";
  return absl::StrCat(value.name.empty() ? "@" : Quoted(value.name), "=",
                      deletion ? "-" : RegData(value));
}

absl::StatusOr<std::string> RegFileOf(const RegistryTree& tree) {
  std::string text = kRegFileHeader;
  for (const RegistryTree::KeyId id : tree.KeysInOrder()) {
    if (id == RegistryTree::kRoot) continue;
    const RegistryTree::Key& key = tree.key(id);
    // A key with subkeys alone comes with them.
    if (key.values.empty() && !key.subkeys.empty()) continue;
    absl::StrAppend(&text, "\n", RegKeyLine(tree, id), "\n");
    if (!PathFitsALine(tree, id)) continue;
    for (const RegistryValue& value : key.values) absl::StrAppend(&text, RegValueLine(value), "\n");
    if (text.size() > kRegTextBytesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the hive is more than ", kRegTextBytesMax, " bytes as .reg text"));
    }
  }
  return text;
}

std::string ForRegedit(std::string text) {
  if (std::all_of(text.begin(), text.end(), [](char each) { return (each & 0x80) == 0; })) {
    return text;
  }
  const std::optional<std::u16string> units = UnitsFromUtf8(text);
  if (!units.has_value()) std::abort();
  const std::vector<std::byte> bytes = BytesFromUnits(u"\uFEFF" + *units);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace vmbfs::hive
