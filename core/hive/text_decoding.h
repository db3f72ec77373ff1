// Text of an input file as UTF-16 units.
//
// Thread safety: any thread.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace vmbfs::hive {

// UTF-16LE with a byte order mark, or UTF-8 with or without one; the mark is
// left out. Unpaired surrogates pass: names in a registry may have them.
// Errors: kInvalidArgument: neither of both.
absl::StatusOr<std::u16string> DecodeText(std::span<const std::byte> bytes);

}  // namespace vmbfs::hive
