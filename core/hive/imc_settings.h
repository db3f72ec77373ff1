// What an initial machine configuration (IMC) hive is to hold, gathered from
// inputs in whatever form, and checked by the rules of such hives.
//
// Trust: names and data come from files. Rules: shared/specs/imc.md section 5.2.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

inline constexpr uint32_t kSequenceDefault = 2;

struct ImcOptions {
  // Windows takes a hive whose number is new to it; a new machine behaves as if
  // it had seen 1. Without one an input may give it, or it is kSequenceDefault.
  std::optional<uint32_t> sequence = std::nullopt;
  // Takes ControlSet001 and its like for CurrentControlSet.
  bool rewrite_control_sets = false;
  // Allows a sequence of 0 or 1.
  bool force = false;
};

// Where an input says something.
struct InputPlace {
  std::string_view input;  // the file's name in messages
  uint32_t line = 0;       // from 1; 0: the file has no lines
  uint32_t column = 0;     // from 1; without lines an offset in bytes
};

// CurrentControlSet, or ControlSet001 and its like.
bool IsControlSet(std::u16string_view name);

// Keys and values below HKEY_LOCAL_MACHINE\SYSTEM.
//
// Thread safety: one thread.
// Bounds: kKeysMax keys and kDataBytesMax bytes of names and data, to which each key
// and value adds kItemBytes. (The largest hive has 16 MiB.)
class ImcSettings {
 public:
  using KeyId = RegistryTree::KeyId;
  static constexpr size_t kKeysMax = 200'000;
  static constexpr size_t kDataBytesMax = size_t{64} << 20;

  // Errors: kInvalidArgument for a sequence of 0 or 1 without `force`.
  static absl::StatusOr<ImcSettings> Create(const ImcOptions& options);

  // The key of this path, with all missing parents. A path begins with
  // HKEY_LOCAL_MACHINE\SYSTEM, HKLM\SYSTEM or SYSTEM.
  //
  // Errors: kInvalidArgument      another root, ControlSet00N without
  //                               `rewrite_control_sets`, or a bad name;
  //         kResourceExhausted.
  absl::StatusOr<KeyId> AddKey(std::u16string_view path);

  // The number of the hive as an input gives it.
  // Errors: kInvalidArgument  it is 0 or 1 without `force`, or another than an
  //                           input before or the options gave.
  absl::Status SetSequence(uint32_t sequence);

  // Errors: kInvalidArgument, kResourceExhausted;
  //         kAlreadyExists: an input gave this value before; the message says where.
  absl::Status AddValue(KeyId key, RegistryValue value, const InputPlace& place);

  const RegistryTree& tree() const { return tree_; }
  // What was understood otherwise than it was written.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  explicit ImcSettings(const ImcOptions& options);
  // About what an item costs beside its name and data.
  static constexpr size_t kItemBytes = 64;

  // As InputPlace; the input is one of `inputs_`.
  struct Place {
    uint32_t input;
    uint32_t line;
    uint32_t column;
  };

  absl::Status Admit(size_t bytes);
  void Remember(KeyId key, const InputPlace& place);
  // REQUIRES: the key has a value of this name, which came through AddValue.
  std::string PlaceOf(KeyId key, std::u16string_view value) const;

  const ImcOptions options_;
  RegistryTree tree_;
  std::optional<uint32_t> sequence_;  // that was given
  size_t data_bytes_ = 0;
  std::vector<std::string> inputs_;         // that gave values
  std::vector<std::vector<Place>> places_;  // by key, of its values
  std::vector<std::string> warnings_;
};

// What a machine would not make of a hive what its author meant.
struct ImcFindings {
  std::vector<std::string> errors;
  std::vector<std::string> warnings;
};

// Sequence present and a DWORD, a SYSTEM key, services' Start and Type DWORDs,
// strings terminated. Bounds: 100 errors and 100 warnings, and a word on the others.
ImcFindings CheckImc(const RegistryTree& tree);

}  // namespace vmbfs::hive
