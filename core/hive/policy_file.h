// `registry.pol` files: what Windows' group policies set in the registry.
//
// Trust: the file is anybody's; what is not understood is an error, with its
// file and offset.
// Thread safety: any thread, with settings of its own.
// Format: shared/specs/imc.md section 5.3, README.md.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "core/hive/imc_settings.h"

namespace vmbfs::hive {

// Whether a file begins as such files do.
bool IsPolicyFile(std::span<const std::byte> bytes);

// Adds the keys and values of a file of the machine's policies.
//
// Errors: kInvalidArgument     "NAME: 0xOFFSET: what is wrong". A broken form is
//                              one error; of entries that an IMC hive cannot
//                              have (other keys than SYSTEM, deletions and
//                              other orders, what was there before) each has a
//                              line, 100 at most and a word on the others;
//         kResourceExhausted   the same, for a bound that was reached.
// What was added before an error stays added.
absl::Status AddPolicyFile(const std::string& name, std::span<const std::byte> bytes,
                           ImcSettings& settings);

}  // namespace vmbfs::hive
