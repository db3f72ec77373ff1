// Strict reading of hives: what Windows' loader would repair, drop or misread is
// refused, with its place and the reason.
//
// Trust: the file is hostile; a tree that comes back is whole.
// Rules: shared/specs/imc.md section 2.5, README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

struct HiveReading {
  RegistryTree tree;
  uint32_t version_minor = 0;
  // What Windows tolerates and this reader does as well: bytes behind the bins,
  // cells in use that nothing refers to, class names.
  std::vector<std::string> warnings;
};

// Thread safety: any thread.
// Bounds: time and memory in proportion to the file's size; iterative.
// Errors: kInvalidArgument with the position in the file and the reason.
absl::StatusOr<HiveReading> ReadHive(std::span<const std::byte> file);

}  // namespace vmbfs::hive
