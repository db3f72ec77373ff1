// JSON inputs: the registry changes of the Host Compute Service (HCS), and a
// compact form that is shorter and can be written of any hive.
//
// Trust: the file is anybody's. What is not understood is an error, with its
// file, line and column.
// Thread safety: any thread, with settings of its own.
// Format: README.md, shared/specs/imc.md sections 1.4 and 5.3.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/hive/imc_settings.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// Adds the keys and values of a file in either form.
//
// Errors: kInvalidArgument     "NAME:LINE:COLUMN: what is wrong": syntax, a
//                              deletion, a key or value that was there before,
//                              and what ImcSettings refuses;
//         kAlreadyExists, kResourceExhausted   the same.
// What was added before an error stays added.
absl::Status AddJsonFile(const std::string& name, std::span<const std::byte> bytes,
                         ImcSettings& settings);

// The tree in the compact form: AddJsonFile makes the same hive of it where it
// is one that ImcSettings makes.
// Bounds: 256 MiB. Errors: kResourceExhausted.
absl::StatusOr<std::string> JsonFileOf(const RegistryTree& tree);

}  // namespace vmbfs::hive
