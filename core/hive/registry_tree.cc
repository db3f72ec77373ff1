#include "core/hive/registry_tree.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/hive/data_text.h"
#include "core/path/guest_path.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

std::u16string UpperCase(std::u16string_view name) {
  std::u16string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(), UpperCaseUnit);
  return upper;
}

absl::Status CheckKeyName(std::u16string_view name) {
  if (name.empty()) return absl::InvalidArgumentError("a key's name is empty");
  if (name.size() > kKeyNameUnitsMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a key's name has ", name.size(), " units; at most ", kKeyNameUnitsMax, " are possible"));
  }
  if (name.find(u'\\') != name.npos || name.find(u'\0') != name.npos) {
    return absl::InvalidArgumentError("a key's name holds a backslash or a NUL");
  }
  return absl::OkStatus();
}

absl::Status CheckValueName(std::u16string_view name) {
  if (name.size() > kValueNameUnitsMax) {
    return absl::InvalidArgumentError(absl::StrCat("a value's name has ", name.size(),
                                                   " units; at most ", kValueNameUnitsMax,
                                                   " are possible"));
  }
  if (name.find(u'\0') != name.npos) {
    return absl::InvalidArgumentError("a value's name holds a NUL");
  }
  return absl::OkStatus();
}

}  // namespace

std::u16string_view TakeName(std::u16string_view& path) {
  const size_t end = path.find(u'\\');
  const std::u16string_view name = path.substr(0, end);
  path = end == path.npos ? std::u16string_view() : path.substr(end + 1);
  return name;
}

RegistryTree::RegistryTree(std::u16string root_name) {
  keys_.push_back({.name = std::move(root_name), .parent = kRoot, .subkeys = {}, .values = {}});
}

absl::StatusOr<RegistryTree::KeyId> RegistryTree::AddKey(KeyId parent, std::u16string_view name) {
  if (absl::Status status = CheckKeyName(name); !status.ok()) return status;
  const size_t depth = key(parent).depth + 1;
  if (depth > kDepthMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a key lies more than ", kDepthMax, " keys below the root"));
  }
  const KeyId id{static_cast<uint32_t>(keys_.size())};
  if (!subkeys_.emplace(Name(parent, UpperCase(name)), id).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("key ", EscapedText(name), " is there already (case does not matter)"));
  }
  keys_.push_back({.name = std::u16string(name),
                   .parent = parent,
                   .depth = depth,
                   .subkeys = {},
                   .values = {}});
  keys_[static_cast<size_t>(parent)].subkeys.push_back(id);
  return id;
}

absl::StatusOr<RegistryTree::KeyId> RegistryTree::FindOrAddKey(KeyId parent,
                                                               std::u16string_view name) {
  const std::optional<KeyId> found = FindKey(parent, name);
  return found.has_value() ? *found : AddKey(parent, name);
}

std::optional<RegistryTree::KeyId> RegistryTree::FindKey(KeyId parent,
                                                         std::u16string_view name) const {
  const auto found = subkeys_.find(Name(parent, UpperCase(name)));
  if (found == subkeys_.end()) return std::nullopt;
  return found->second;
}

absl::Status RegistryTree::AddValue(KeyId key, RegistryValue value) {
  if (absl::Status status = CheckValueName(value.name); !status.ok()) return status;
  if (!values_.emplace(key, UpperCase(value.name)).second) {
    return absl::AlreadyExistsError(absl::StrCat("value ", EscapedText(value.name),
                                                 " is there already (case does not matter)"));
  }
  keys_[static_cast<size_t>(key)].values.push_back(std::move(value));
  return absl::OkStatus();
}

std::vector<RegistryTree::KeyId> RegistryTree::SortedSubkeys(KeyId id) const {
  std::vector<KeyId> sorted = key(id).subkeys;
  std::sort(sorted.begin(), sorted.end(),
            [this](KeyId a, KeyId b) { return CompareNames(key(a).name, key(b).name) < 0; });
  return sorted;
}

std::vector<RegistryTree::KeyId> RegistryTree::KeysInOrder() const {
  std::vector<KeyId> keys;
  keys.reserve(key_count());
  std::vector<KeyId> waiting = {kRoot};
  while (!waiting.empty()) {
    const KeyId id = waiting.back();
    waiting.pop_back();
    keys.push_back(id);
    const std::vector<KeyId> subkeys = SortedSubkeys(id);
    waiting.insert(waiting.end(), subkeys.rbegin(), subkeys.rend());
  }
  return keys;
}

std::u16string RegistryTree::Path(KeyId id) const {
  std::vector<KeyId> ids(key(id).depth);
  for (size_t i = ids.size(); i > 0; id = key(id).parent) ids[--i] = id;
  std::u16string path;
  for (const KeyId each : ids) {
    if (!path.empty()) path.push_back(u'\\');
    path += key(each).name;
  }
  return path;
}

std::string RegistryTree::PathText(KeyId id) const { return Utf8FromUtf16(Path(id)); }

}  // namespace vmbfs::hive
