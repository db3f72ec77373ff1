// The folder that links are made in.

#pragma once

#include <filesystem>

#include "absl/status/status.h"

namespace vmbfs {

// Makes `runtime_dir` and `runtime_dir/vm` so that owners of links, who may be
// other users, can reach the sockets in them, and nobody else can put one there.
// Each gets mode 0711; of a runtime_dir that was there already no permission is
// taken away.
//
// Errors: kFailedPrecondition  others could replace what lies there; the message
//                              says which permission or owner to change.
//         kInternal            the system's own reason.
absl::Status PrepareRuntimeDirectory(const std::filesystem::path& runtime_dir);

}  // namespace vmbfs
