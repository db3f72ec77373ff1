// One value of a hive, with its data wherever that lies.
//
// Thread safety: one thread a file.
// Trust: the record's bytes are hostile. Rules: shared/specs/imc.md 2.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/hive/hive_cells.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// Claims the value's cell and all cells of its data.
// Errors: kInvalidArgument with the offset and the reason.
absl::StatusOr<RegistryValue> ReadValue(HiveCells& cells, uint32_t offset);

// A name as a record stores it.
// Errors: kInvalidArgument: an odd number of bytes of UTF-16.
absl::StatusOr<std::u16string> NameFromBytes(std::span<const std::byte> bytes, bool latin1);

}  // namespace vmbfs::hive
