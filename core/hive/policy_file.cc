#include "core/hive/policy_file.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "core/hive/data_text.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

constexpr char kSignature[] = {'P', 'R', 'e', 'g'};
constexpr uint32_t kVersion = 1;
constexpr size_t kErrorsMax = 100;

// [KEY;VALUE;TYPE;SIZE;DATA]; the five marks are UTF-16 units, key and value end
// with a NUL, type and size are 32-bit numbers.
struct Entry {
  size_t offset = 0;
  std::u16string key;
  RegistryValue value;
};

// Takes the file apart, from front to back.
class Cursor {
 public:
  Cursor(const std::string& name, std::span<const std::byte> bytes) : name_(name), bytes_(bytes) {}

  bool at_end() const { return position_ == bytes_.size(); }
  size_t position() const { return position_; }

  absl::Status Error(size_t offset, absl::string_view why) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": 0x", absl::Hex(offset), ": ", why));
  }
  absl::Status Error(absl::string_view why) const { return Error(position_, why); }

  // Of 2 or 4 bytes, little-endian; nullopt: the file ends before.
  std::optional<uint32_t> Number(size_t bytes) {
    if (bytes > bytes_.size() - position_) return std::nullopt;
    uint32_t number = 0;
    for (size_t i = 0; i < bytes; ++i) {
      number |= std::to_integer<uint32_t>(bytes_[position_++]) << (8 * i);
    }
    return number;
  }
  absl::Status Mark(char mark) {
    const size_t start = position_;
    if (Number(sizeof(char16_t)) == static_cast<uint32_t>(mark)) return absl::OkStatus();
    return Error(start, absl::StrCat("`", std::string(1, mark), "` is expected"));
  }
  absl::StatusOr<std::u16string> Text(size_t units_max) {
    const size_t start = position_;
    std::u16string text;
    for (;;) {
      const auto unit = Number(sizeof(char16_t));
      if (!unit.has_value()) return Error(start, "the text does not end within the file");
      if (*unit == 0) return text;
      if (text.size() == units_max) {
        return Error(start, absl::StrCat("the text has more than ", units_max, " units"));
      }
      text.push_back(static_cast<char16_t>(*unit));
    }
  }
  // nullopt: the file ends before.
  std::optional<std::vector<std::byte>> Bytes(size_t count) {
    if (count > bytes_.size() - position_) return std::nullopt;
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return std::vector<std::byte>(taken.begin(), taken.end());
  }

 private:
  const std::string& name_;
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

// Type, size and data, with the marks before and behind.
absl::Status ReadData(Cursor& cursor, RegistryValue& value) {
  if (absl::Status status = cursor.Mark(';'); !status.ok()) return status;
  const auto type = cursor.Number(sizeof(uint32_t));
  if (!type.has_value()) return cursor.Error("the file ends within a type");
  if (absl::Status status = cursor.Mark(';'); !status.ok()) return status;
  const size_t size_offset = cursor.position();
  const auto size = cursor.Number(sizeof(uint32_t));
  if (!size.has_value()) return cursor.Error("the file ends within a size");
  if (absl::Status status = cursor.Mark(';'); !status.ok()) return status;
  auto data = cursor.Bytes(*size);
  if (!data.has_value()) {
    return cursor.Error(size_offset, absl::StrCat(*size, " bytes of data leave the file"));
  }
  value.type = static_cast<ValueType>(*type);
  value.data = *std::move(data);
  return cursor.Mark(']');
}

absl::StatusOr<Entry> ReadEntry(Cursor& cursor) {
  Entry entry{.offset = cursor.position(), .key = {}, .value = {}};
  if (absl::Status status = cursor.Mark('['); !status.ok()) return status;
  auto key = cursor.Text((kKeyNameUnitsMax + 1) * kDepthMax);
  if (!key.ok()) return key.status();
  entry.key = *std::move(key);
  if (absl::Status status = cursor.Mark(';'); !status.ok()) return status;
  auto name = cursor.Text(kValueNameUnitsMax);
  if (!name.ok()) return name.status();
  entry.value.name = *std::move(name);
  if (absl::Status status = ReadData(cursor, entry.value); !status.ok()) return status;
  return entry;
}

bool StartsWith(std::u16string_view name, std::u16string_view start) {
  return CompareNames(name.substr(0, start.size()), start) == 0;
}

absl::Status AddEntry(const std::string& name, Entry entry, ImcSettings& settings) {
  // Names that are orders: **del.NAME, **DelVals., **DeleteValues, **DeleteKeys,
  // **soft.NAME, **SecureKey.
  if (StartsWith(entry.value.name, u"**del")) {
    return absl::InvalidArgumentError(
        absl::StrCat(GivenPathText(entry.value.name),
                     ": deleting is not possible: an IMC hive only adds and changes"));
  }
  if (StartsWith(entry.value.name, u"**")) {
    return absl::InvalidArgumentError(absl::StrCat(
        GivenPathText(entry.value.name),
        ": this order of group policies is not possible: an IMC hive only adds and changes"));
  }
  // No root stands before these keys: SYSTEM is the only way to begin.
  std::u16string_view rest = entry.key;
  if (CompareNames(TakeName(rest), u"SYSTEM") != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "key ", GivenPathText(entry.key),
        ": Windows takes settings below HKEY_LOCAL_MACHINE\\SYSTEM only from an IMC hive"));
  }
  const auto id = settings.AddKey(entry.key);
  if (!id.ok()) return id.status();
  // Without a value it is a key alone.
  if (entry.value.name.empty() && entry.value.data.empty()) return absl::OkStatus();
  return settings.AddValue(
      *id, std::move(entry.value),
      {.input = name, .line = 0, .column = static_cast<uint32_t>(entry.offset)});
}

}  // namespace

bool IsPolicyFile(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(kSignature) &&
         std::equal(std::begin(kSignature), std::end(kSignature), bytes.begin(),
                    [](char a, std::byte b) { return static_cast<std::byte>(a) == b; });
}

absl::Status AddPolicyFile(const std::string& name, std::span<const std::byte> bytes,
                           ImcSettings& settings) {
  Cursor cursor(name, bytes);
  if (!IsPolicyFile(bytes)) return cursor.Error("it does not begin with `PReg`");
  cursor.Number(sizeof(kSignature));
  if (cursor.Number(sizeof(uint32_t)) != kVersion) {
    return cursor.Error(sizeof(kSignature), "its version is not 1");
  }
  std::vector<std::string> errors;
  while (!cursor.at_end()) {
    absl::StatusOr<Entry> entry = ReadEntry(cursor);
    if (!entry.ok()) return entry.status();
    const size_t offset = entry->offset;
    const absl::Status status = AddEntry(name, *std::move(entry), settings);
    if (status.ok()) continue;
    const absl::Status located = cursor.Error(offset, status.message());
    if (absl::IsResourceExhausted(status)) {
      return absl::ResourceExhaustedError(located.message());
    }
    if (errors.size() == kErrorsMax) {
      errors.push_back(absl::StrCat(name, ": there is more of this kind"));
      break;
    }
    errors.emplace_back(located.message());
  }
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

}  // namespace vmbfs::hive
