#include "core/hive/value_data.h"

#include <algorithm>

#include "core/hive/utf16.h"

namespace vmbfs::hive {
namespace {

// The last unit, and with `count` 2 the one before it, are NULs.
bool EndsWithNuls(const std::vector<std::byte>& data, size_t count) {
  const size_t bytes = count * sizeof(char16_t);
  return data.size() >= bytes && std::all_of(data.end() - static_cast<ptrdiff_t>(bytes), data.end(),
                                             [](std::byte each) { return each == std::byte{0}; });
}

std::vector<std::byte> LittleEndian(uint64_t number, size_t bytes) {
  std::vector<std::byte> data;
  for (size_t i = 0; i < bytes; ++i) data.push_back(static_cast<std::byte>(number >> (8 * i)));
  return data;
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
  std::optional<std::u16string> text = UnitsFromBytes(value.data);
  if (!text.has_value() || text->empty() || text->find(u'\0') != text->size() - 1) {
    return std::nullopt;
  }
  text->pop_back();
  return text;
}

std::optional<std::vector<std::u16string>> StringsOf(const RegistryValue& value) {
  if (value.type != ValueType::kMultiString) return std::nullopt;
  const std::optional<std::u16string> text = UnitsFromBytes(value.data);
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

bool IsTerminated(const RegistryValue& value) {
  if (value.data.size() % sizeof(char16_t) != 0) return false;
  // An empty list is one NUL; any other ends with that of its last string and
  // its own.
  const bool list = value.type == ValueType::kMultiString && value.data.size() > sizeof(char16_t);
  return EndsWithNuls(value.data, list ? 2 : 1);
}

std::vector<std::byte> DwordData(uint32_t number) { return LittleEndian(number, sizeof(number)); }
std::vector<std::byte> QwordData(uint64_t number) { return LittleEndian(number, sizeof(number)); }

std::vector<std::byte> StringData(std::u16string_view text) {
  std::vector<std::byte> data = BytesFromUnits(text);
  data.resize(data.size() + sizeof(char16_t));
  return data;
}

std::vector<std::byte> StringsData(std::span<const std::u16string> strings) {
  std::vector<std::byte> data;
  for (const std::u16string& each : strings) {
    const std::vector<std::byte> bytes = StringData(each);
    data.insert(data.end(), bytes.begin(), bytes.end());
  }
  data.resize(data.size() + sizeof(char16_t));
  return data;
}

}  // namespace vmbfs::hive
