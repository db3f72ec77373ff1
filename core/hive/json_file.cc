#include "core/hive/json_file.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/data_text.h"
#include "core/hive/json_document.h"
#include "core/hive/json_input.h"
#include "core/hive/value_data.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

using Kind = JsonNode::Kind;

// {"type": 11, "hex": "0102…"}; "base64" in place of "hex".
absl::Status ReadRawData(const JsonDocument& document, const JsonNode& node, RegistryValue& value) {
  const absl::Status status = CheckMembers(document, node, {"type", "hex", "base64"});
  if (!status.ok()) return status;
  const JsonNode* const type = node.Member("type");
  const JsonNode* const hex = node.Member("hex");
  const JsonNode* const base64 = node.Member("base64");
  if (type == nullptr || (hex == nullptr) == (base64 == nullptr)) {
    return document.Error(node, "`type` and one of `hex` and `base64` are expected");
  }
  const auto number = NumberIn(document, *type, UINT32_MAX);
  if (!number.ok()) return number.status();
  auto data = hex != nullptr ? HexIn(document, *hex) : Base64In(document, *base64);
  if (!data.ok()) return data.status();
  value.type = static_cast<ValueType>(*number);
  value.data = *std::move(data);
  return absl::OkStatus();
}

absl::Status ReadString(const JsonDocument& document, const JsonNode& node, ValueType type,
                        RegistryValue& value) {
  const auto text = TextIn(document, node);
  if (!text.ok()) return text.status();
  value.type = type;
  value.data = StringData(*text);
  return absl::OkStatus();
}

absl::Status ReadStrings(const JsonDocument& document, const JsonNode& node, RegistryValue& value) {
  const absl::Status status = CheckKind(document, node, Kind::kArray, "an array of strings");
  if (!status.ok()) return status;
  std::vector<std::u16string> strings;
  for (const JsonNode& element : node.elements) {
    auto text = TextIn(document, element);
    if (!text.ok()) return text.status();
    if (text->empty()) return document.Error(element, "an empty string would end the list");
    strings.push_back(*std::move(text));
  }
  value.type = ValueType::kMultiString;
  value.data = StringsData(strings);
  return absl::OkStatus();
}

absl::Status ReadNumber(const JsonDocument& document, const JsonNode& node, ValueType type,
                        RegistryValue& value) {
  const bool dword = type == ValueType::kDword;
  const auto number = NumberIn(document, node, dword ? UINT32_MAX : UINT64_MAX);
  if (!number.ok()) return number.status();
  value.type = type;
  value.data = dword ? DwordData(static_cast<uint32_t>(*number)) : QwordData(*number);
  return absl::OkStatus();
}

// {"dword": 2}: the type, and data in the form that suits it.
absl::Status ReadData(const JsonDocument& document, const JsonNode& node, RegistryValue& value) {
  if (node.kind == Kind::kNull) {
    return document.Error(node,
                          "deleting a value is not possible: an IMC hive only adds and changes");
  }
  const absl::Status status =
      CheckKind(document, node, Kind::kObject, "an object such as {\"dword\": 2}");
  if (!status.ok()) return status;
  if (node.Member("type") != nullptr) return ReadRawData(document, node, value);
  if (node.elements.size() != 1) {
    return document.Error(node, "one type with its data is expected, such as {\"dword\": 2}");
  }
  const JsonNode& data = node.elements.front();
  if (data.name == "sz") return ReadString(document, data, ValueType::kString, value);
  if (data.name == "expand") return ReadString(document, data, ValueType::kExpandString, value);
  if (data.name == "multi") return ReadStrings(document, data, value);
  if (data.name == "dword") return ReadNumber(document, data, ValueType::kDword, value);
  if (data.name == "qword") return ReadNumber(document, data, ValueType::kQword, value);
  if (data.name == "binary" || data.name == "none") {
    auto bytes = HexIn(document, data);
    if (!bytes.ok()) return bytes.status();
    value.type = data.name == "none" ? ValueType::kNone : ValueType::kBinary;
    value.data = *std::move(bytes);
    return absl::OkStatus();
  }
  return CheckMembers(document, node,
                      {"sz", "expand", "multi", "dword", "qword", "binary", "none", "type"});
}

// A path begins as ImcSettings::AddKey has it, or with a control set.
std::u16string WholePath(const std::string& name) {
  std::u16string path = UnitsOf(name);
  std::u16string_view rest = path;
  if (IsControlSet(TakeName(rest))) path.insert(0, u"SYSTEM\\");
  return path;
}

absl::Status AddKeys(const JsonDocument& document, const JsonNode& keys, ImcSettings& settings) {
  const absl::Status status = CheckKind(document, keys, Kind::kObject, "an object of keys");
  if (!status.ok()) return status;
  std::set<ImcSettings::KeyId> ids;
  for (const JsonNode& values : keys.elements) {
    if (values.kind == Kind::kNull) {
      return document.Error(values,
                            "deleting a key is not possible: an IMC hive only adds and changes");
    }
    const absl::Status is_object =
        CheckKind(document, values, Kind::kObject, "an object of values");
    if (!is_object.ok()) return is_object;
    const auto id = settings.AddKey(WholePath(values.name));
    if (!id.ok()) return document.Located(values, id.status());
    if (!ids.insert(*id).second) {
      return document.Error(values, "this key was there before in this file");
    }
    for (const JsonNode& node : values.elements) {
      RegistryValue value{.name = UnitsOf(node.name), .type = {}, .data = {}};
      if (absl::Status read = ReadData(document, node, value); !read.ok()) return read;
      const absl::Status added = settings.AddValue(*id, std::move(value), document.PlaceOf(node));
      if (!added.ok()) return document.Located(node, added);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddCompactForm(const JsonDocument& document, ImcSettings& settings) {
  const JsonNode& root = document.root();
  if (absl::Status status = CheckMembers(document, root, {"sequence", "keys"}); !status.ok()) {
    return status;
  }
  if (const JsonNode* const sequence = root.Member("sequence"); sequence != nullptr) {
    const auto number = NumberIn(document, *sequence, UINT32_MAX);
    if (!number.ok()) return number.status();
    const absl::Status status = settings.SetSequence(static_cast<uint32_t>(*number));
    if (!status.ok()) return document.Located(*sequence, status);
  }
  const JsonNode* const keys = root.Member("keys");
  return keys == nullptr ? absl::OkStatus() : AddKeys(document, *keys, settings);
}

absl::Status AddJsonFile(const std::string& name, std::span<const std::byte> bytes,
                         ImcSettings& settings) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::Parse(name, bytes);
  if (!document.ok()) return document.status();
  const JsonNode& root = document->root();
  if (const JsonNode* const changes = root.Member("RegistryChanges"); changes != nullptr) {
    const absl::Status status = CheckMembers(*document, root, {"RegistryChanges"});
    return status.ok() ? AddRegistryChanges(*document, *changes, settings) : status;
  }
  if (root.Member("AddValues") != nullptr || root.Member("DeleteKeys") != nullptr) {
    return AddRegistryChanges(*document, root, settings);
  }
  if (root.Member("sequence") != nullptr || root.Member("keys") != nullptr) {
    return AddCompactForm(*document, settings);
  }
  return document->Error(root,
                         "an object with `keys`, or with `AddValues` as the Host Compute Service "
                         "has it, is expected");
}

}  // namespace vmbfs::hive
