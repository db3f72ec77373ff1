// The place in the file system that the server binds.

#pragma once

#include <filesystem>

#include "absl/status/status.h"

namespace vmbfs::rpc {

// Makes sure that `path` can be bound: removes a socket there that nobody
// listens on.
//
// Errors: kFailedPrecondition when somebody listens, or it is no socket;
// kInvalidArgument when the path is too long; kInternal.
absl::Status ClearSocketPath(const std::filesystem::path& path);

}  // namespace vmbfs::rpc
