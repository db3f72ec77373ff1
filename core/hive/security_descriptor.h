// The one security descriptor of the hives that we write.
//
// Thread safety: any thread.

#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "absl/status/status.h"

namespace vmbfs::hive {

inline constexpr size_t kSecurityDescriptorBytes = 144;

// SYSTEM and Administrators may do everything, Everyone and RESTRICTED read;
// owner and group are Administrators. Byte for byte what Microsoft's hive has
// (shared/specs/imc.md 3.4).
std::array<std::byte, kSecurityDescriptorBytes> MakeSecurityDescriptor();

// Checks the form of a self-relative descriptor: where its parts lie, and that
// SIDs and entries lie within them.
// Errors: kInvalidArgument with what is wrong.
absl::Status CheckSecurityDescriptor(std::span<const std::byte> descriptor);

}  // namespace vmbfs::hive
