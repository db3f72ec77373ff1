// `RegistryChanges` of the Host Compute Service's schema (imc.md section 1.4).

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/json_input.h"
#include "core/hive/value_data.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

using Kind = JsonNode::Kind;

struct TypeName {
  std::string_view name;
  ValueType type;
  const char* data_member;  // that has the data; nullptr: none
};
constexpr std::array<TypeName, 8> kTypes = {{
    {"None", ValueType::kNone, nullptr},
    {"String", ValueType::kString, "StringValue"},
    {"ExpandedString", ValueType::kExpandString, "StringValue"},
    {"MultiString", ValueType::kMultiString, "StringValue"},
    {"Binary", ValueType::kBinary, "BinaryValue"},
    {"DWord", ValueType::kDword, "DWordValue"},
    {"QWord", ValueType::kQword, "QWordValue"},
    {"CustomType", ValueType{}, "BinaryValue"},
}};

absl::StatusOr<TypeName> TypeIn(const JsonDocument& document, const JsonNode& value) {
  const JsonNode* const type = value.Member("Type");
  if (type == nullptr) return document.Error(value, "the value has no `Type`");
  for (const TypeName& each : kTypes) {
    if (type->kind == Kind::kString && type->text == each.name) return each;
  }
  return document.Error(*type,
                        "`Type` is one of None, String, ExpandedString, MultiString, Binary, "
                        "DWord, QWord, CustomType");
}

// Go writes a list that was never filled as null.
bool IsEmptyList(const JsonNode& node) {
  return node.kind == Kind::kNull || (node.kind == Kind::kArray && node.elements.empty());
}

// Strings with a NUL between them; NULs at the end change nothing.
absl::StatusOr<std::vector<std::byte>> StringsIn(const JsonDocument& document,
                                                 const JsonNode& node) {
  const absl::Status status = CheckKind(document, node, Kind::kString, "a string");
  if (!status.ok()) return status;
  std::u16string text = UnitsOf(node.text);
  while (!text.empty() && text.back() == u'\0') text.pop_back();
  std::vector<std::u16string> strings;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(u'\0', start), text.size());
    if (end == start) return document.Error(node, "an empty string would end the list");
    strings.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return StringsData(strings);
}

absl::StatusOr<std::vector<std::byte>> DataIn(const JsonDocument& document, const JsonNode& node,
                                              ValueType type) {
  switch (type) {
    case ValueType::kString:
    case ValueType::kExpandString: {
      const auto text = TextIn(document, node);
      if (!text.ok()) return text.status();
      return StringData(*text);
    }
    case ValueType::kMultiString:
      return StringsIn(document, node);
    case ValueType::kDword: {
      const auto number = NumberIn(document, node, UINT32_MAX);
      if (!number.ok()) return number.status();
      return DwordData(static_cast<uint32_t>(*number));
    }
    case ValueType::kQword: {
      const auto number = NumberIn(document, node, UINT64_MAX);
      if (!number.ok()) return number.status();
      return QwordData(*number);
    }
    default:
      return Base64In(document, node);
  }
}

absl::Status ReadValue(const JsonDocument& document, const JsonNode& node, RegistryValue& value) {
  const auto type = TypeIn(document, node);
  if (!type.ok()) return type.status();
  value.type = type->type;
  const JsonNode* data = nullptr;
  for (const JsonNode& member : node.elements) {
    const bool has_data = member.name == "StringValue" || member.name == "BinaryValue" ||
                          member.name == "DWordValue" || member.name == "QWordValue";
    if (has_data && (type->data_member == nullptr || member.name != type->data_member)) {
      return document.Error(member, absl::StrCat(member.name, " does not fit the value's `Type`"));
    }
    if (has_data) data = &member;
  }
  const JsonNode* const custom = node.Member("CustomType");
  if ((custom != nullptr) != (type->name == "CustomType")) {
    return document.Error(node, "`CustomType` goes with the `Type` of that name");
  }
  if (custom != nullptr) {
    const auto number = NumberIn(document, *custom, UINT32_MAX);
    if (!number.ok()) return number.status();
    value.type = static_cast<ValueType>(*number);
  }
  if (type->data_member == nullptr) return absl::OkStatus();
  if (data == nullptr) {
    return document.Error(node, absl::StrCat("`", type->data_member, "` is missing"));
  }
  auto bytes =
      type->name == "CustomType" ? Base64In(document, *data) : DataIn(document, *data, type->type);
  if (!bytes.ok()) return bytes.status();
  value.data = *std::move(bytes);
  return absl::OkStatus();
}

absl::StatusOr<ImcSettings::KeyId> AddKey(const JsonDocument& document, const JsonNode& value,
                                          ImcSettings& settings) {
  const JsonNode* const key = value.Member("Key");
  if (key == nullptr) return document.Error(value, "the value has no `Key`");
  absl::Status status = CheckMembers(document, *key, {"Hive", "Name", "Volatile"});
  if (!status.ok()) return status;
  const JsonNode* const hive = key->Member("Hive");
  if (hive == nullptr || hive->kind != Kind::kString ||
      CompareNames(UnitsOf(hive->text), u"System") != 0) {
    return document.Error(*key,
                          "Windows takes settings of the hive `System` only from an IMC hive");
  }
  if (const JsonNode* const is_volatile = key->Member("Volatile"); is_volatile != nullptr) {
    status = CheckKind(document, *is_volatile, Kind::kBool, "true or false");
    if (!status.ok()) return status;
    if (is_volatile->number != 0) {
      return document.Error(*is_volatile, "a hive cannot hold volatile keys");
    }
  }
  const JsonNode* const name = key->Member("Name");
  if (name == nullptr) return document.Error(*key, "the key has no `Name`");
  const auto path = TextIn(document, *name);
  if (!path.ok()) return path.status();
  const auto id = settings.AddKey(path->empty() ? u"SYSTEM" : u"SYSTEM\\" + *path);
  if (!id.ok()) return document.Located(*name, id.status());
  return id;
}

}  // namespace

absl::Status AddRegistryChanges(const JsonDocument& document, const JsonNode& changes,
                                ImcSettings& settings) {
  absl::Status status = CheckMembers(document, changes, {"AddValues", "DeleteKeys"});
  if (!status.ok()) return status;
  if (const JsonNode* const deleted = changes.Member("DeleteKeys");
      deleted != nullptr && !IsEmptyList(*deleted)) {
    return document.Error(*deleted,
                          "deleting keys is not possible: an IMC hive only adds and changes");
  }
  const JsonNode* const values = changes.Member("AddValues");
  if (values == nullptr || values->kind == Kind::kNull) return absl::OkStatus();
  status = CheckKind(document, *values, Kind::kArray, "an array of values");
  if (!status.ok()) return status;
  for (const JsonNode& node : values->elements) {
    status = CheckMembers(document, node,
                          {"Key", "Name", "Type", "StringValue", "BinaryValue", "DWordValue",
                           "QWordValue", "CustomType"});
    if (!status.ok()) return status;
    const auto id = AddKey(document, node, settings);
    if (!id.ok()) return id.status();
    RegistryValue value;
    if (const JsonNode* const name = node.Member("Name"); name != nullptr) {
      auto text = TextIn(document, *name);
      if (!text.ok()) return text.status();
      value.name = *std::move(text);
    }
    if (absl::Status read = ReadValue(document, node, value); !read.ok()) return read;
    const absl::Status added = settings.AddValue(*id, std::move(value), document.PlaceOf(node));
    if (!added.ok()) return document.Located(node, added);
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::hive
