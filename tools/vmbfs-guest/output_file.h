// Bytes to a descriptor, and a file written whole or not at all.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace vmbfs {

// Writes all of `data`. Errors: the system's own reason.
absl::Status WriteAll(int fd, std::span<const std::byte> data);

// Writes `data` beside `path`, syncs it, and renames it to `path`: whoever
// looks sees the old file or the whole new one.
//
// Errors (`path` is as it was, nothing is left beside it):
//   kFailedPrecondition  something other than a regular file stands there.
//   any other            the system's own reason.
absl::Status WriteFileWhole(const std::string& path, std::span<const std::byte> data);

}  // namespace vmbfs
