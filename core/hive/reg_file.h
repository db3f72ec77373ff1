// `.reg` files, version 5: what regedit exports and people write.
//
// Trust: the file is anybody's. Regedit skips what it does not understand; here
// that is an error, with its file, line and column.
// Thread safety: any thread, with settings of its own.
// Format: shared/specs/imc.md section 5.3, README.md.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/hive/imc_settings.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// Adds the keys and values of a file in UTF-16LE with a byte order mark, or in
// UTF-8 with or without one.
//
// Errors: kInvalidArgument     "NAME:LINE:COLUMN: what is wrong": syntax, a
//                              deletion, a key or value that was there before,
//                              and what ImcSettings refuses;
//         kResourceExhausted   the same, for a bound that was reached.
// What was added before an error stays added.
absl::Status AddRegFile(const std::string& name, std::span<const std::byte> bytes,
                        ImcSettings& settings);

// A file that makes the tree's keys and values below HKEY_LOCAL_MACHINE, in
// UTF-8. The root's own values have no place in such a file and are left out.
absl::StatusOr<std::string> RegFileOf(const RegistryTree& tree);

// `.reg` text of ours as regedit understands it, which takes UTF-8 for the
// machine's code page: ASCII as it is, anything else as UTF-16LE with a byte
// order mark. REQUIRES: UTF-8.
std::string ForRegedit(std::string text);

}  // namespace vmbfs::hive
