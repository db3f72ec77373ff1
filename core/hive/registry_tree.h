// Keys and values of a registry, as people think of them: what a hive is
// written from, and what a hive that was read holds.
//
// Limits: shared/specs/imc.md section 2.4.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs::hive {

// Types of values; others are legal as well.
enum class ValueType : uint32_t {
  kNone = 0,
  kString = 1,        // UTF-16LE with a terminating NUL; likewise below
  kExpandString = 2,  // with %VARIABLES%
  kBinary = 3,
  kDword = 4,
  kDwordBigEndian = 5,
  kLink = 6,
  kMultiString = 7,  // strings, and an empty one
  kResourceList = 8,
  kFullResourceDescriptor = 9,
  kResourceRequirementsList = 10,
  kQword = 11,
};

inline constexpr size_t kKeyNameUnitsMax = 255;
inline constexpr size_t kValueNameUnitsMax = 16'383;
inline constexpr size_t kDepthMax = 500;  // keys below the root

struct RegistryValue {
  std::u16string name;  // empty: the key's default value
  ValueType type{};
  std::vector<std::byte> data;
};

// Takes the first name off a path; names are separated by single backslashes.
std::u16string_view TakeName(std::u16string_view& path);

// A tree of keys from one root. Names are compared as Windows does, without
// regard to case; the case they were added with stays.
//
// Thread safety: one thread, or many that only read.
// Bounds: kDepthMax; otherwise what its user adds.
class RegistryTree {
 public:
  enum class KeyId : uint32_t {};
  static constexpr KeyId kRoot{0};

  struct Key {
    std::u16string name;
    KeyId parent{};  // the root's is the root
    size_t depth = 0;
    std::vector<KeyId> subkeys;         // in the order they were added
    std::vector<RegistryValue> values;  // the same
  };

  // The root's name is the hive's own matter: no path has it.
  explicit RegistryTree(std::u16string root_name = u"ROOT");

  // Errors: kInvalidArgument  the name is empty, too long, or holds `\` or NUL;
  //         kAlreadyExists    `parent` has a subkey of this name;
  //         kResourceExhausted  too deep.
  absl::StatusOr<KeyId> AddKey(KeyId parent, std::u16string_view name);

  // The subkey of this name, added when it is missing. Errors: as AddKey.
  absl::StatusOr<KeyId> FindOrAddKey(KeyId parent, std::u16string_view name);

  // nullopt: `parent` has no subkey of this name.
  std::optional<KeyId> FindKey(KeyId parent, std::u16string_view name) const;

  // Errors: kInvalidArgument  the name is too long or holds a NUL;
  //         kAlreadyExists    `key` has a value of this name.
  absl::Status AddValue(KeyId key, RegistryValue value);

  // Other data for a value. REQUIRES: `key` has so many values.
  void SetData(KeyId key, size_t value, std::vector<std::byte> data) {
    keys_[static_cast<size_t>(key)].values[value].data = std::move(data);
  }

  const Key& key(KeyId id) const { return keys_[static_cast<size_t>(id)]; }
  size_t key_count() const { return keys_.size(); }

  // The subkeys as a hive lists them: ascending by upper-cased name, compared
  // by 16-bit units.
  std::vector<KeyId> SortedSubkeys(KeyId id) const;

  // All keys, the root first; below each its subkeys as SortedSubkeys has them.
  std::vector<KeyId> KeysInOrder() const;

  // From the root: `SYSTEM\CurrentControlSet`; empty for the root.
  std::u16string Path(KeyId id) const;
  std::string PathText(KeyId id) const;  // in UTF-8

 private:
  using Name = std::pair<KeyId, std::u16string>;  // of a key's child, upper-cased

  std::vector<Key> keys_;
  absl::flat_hash_map<Name, KeyId> subkeys_;
  absl::flat_hash_set<Name> values_;
};

}  // namespace vmbfs::hive
