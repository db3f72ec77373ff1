// The folder that one daemon's state is in.

#pragma once

#include <filesystem>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::state {

// Makes the folders above `path` that are missing, with mode 0711: others get
// through them, and see nothing of what lies there.
absl::Status MakeFoldersAbove(const std::filesystem::path& path);

// Makes the folder, and those above it, when missing; it gets mode 0700.
absl::Status MakeStateDirectory(const std::filesystem::path& folder);

// Takes the folder's lock, without waiting; it lasts as long as the descriptor.
// Errors: kFailedPrecondition  another process has it; the message names the
//                              folder.
absl::StatusOr<hyperv::UniqueFd> LockStateDirectory(const std::filesystem::path& folder);

// Makes names in the folder survive power loss.
absl::Status SyncFolder(const std::filesystem::path& folder);

}  // namespace vmbfs::state
