// Inputs to a hive, and a hive to what it holds: what the tool and the API share.
//
// Trust: inputs and hives are anybody's. Rules: shared/specs/imc.md section 5.2.

#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/imc_settings.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

struct ImcInput {
  std::string name;  // for messages: a file's name
  std::vector<std::byte> bytes;
};

struct ImcBuild {
  std::vector<std::byte> hive;
  std::vector<std::string> warnings;
};

// A hive of the keys and values of all inputs, in their order. The same inputs
// give the same bytes.
//
// Thread safety: any thread.
// Bounds: those of ImcSettings and WriteHive; `force` lifts that of one value.
// Errors: kInvalidArgument    an input is broken or holds what an IMC hive
//                             cannot; one line each where there are several;
//         kAlreadyExists      two inputs give the same value;
//         kResourceExhausted  a bound was reached.
absl::StatusOr<ImcBuild> BuildImc(std::span<const ImcInput> inputs, const ImcOptions& options);

struct ImcValidation {
  RegistryTree tree;
  std::vector<std::string> warnings;
};

// What a hive holds, when a machine would make of it what its author meant:
// read strictly, then checked by CheckImc.
//
// Thread safety: any thread.
// Errors: kInvalidArgument; one line each where there are several.
absl::StatusOr<ImcValidation> ValidateImc(std::span<const std::byte> hive);

}  // namespace vmbfs::hive
