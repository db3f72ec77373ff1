#include "core/host/runtime_directory.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/state/state_directory.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kReachable = 0711;

absl::Status SystemError(int error, const char* what, const fs::path& path) {
  return absl::InternalError(
      absl::StrCat(what, " ", path.string(), ": ", std::generic_category().message(error)));
}

// true when the folder was made. Its mode does not depend on the umask.
absl::StatusOr<bool> MakeFolder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), kReachable) != 0) {
    if (errno == EEXIST) return false;
    return SystemError(errno, "cannot make the folder", folder);
  }
  if (::chmod(folder.c_str(), kReachable) != 0) {
    return SystemError(errno, "cannot set the mode of", folder);
  }
  return true;
}

absl::Status PrepareRoot(const fs::path& folder) {
  if (absl::Status status = state::MakeFoldersAbove(folder); !status.ok()) return status;
  const auto made = MakeFolder(folder);
  if (!made.ok()) return made.status();
  if (*made) return absl::OkStatus();
  struct stat info{};
  if (::stat(folder.c_str(), &info) != 0) return SystemError(errno, "cannot look at", folder);
  if (!S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(folder.string(), " is not a folder"));
  }
  const bool others_write = (info.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  if (others_write && (info.st_mode & S_ISVTX) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("others may rename what lies in ", folder.string(),
                     "; take their write permission away, or use another runtime directory"));
  }
  const mode_t mode = info.st_mode & 07777;
  if (info.st_uid == ::geteuid() && (mode | kReachable) != mode &&
      ::chmod(folder.c_str(), mode | kReachable) != 0) {
    return SystemError(errno, "cannot set the mode of", folder);
  }
  return absl::OkStatus();
}

absl::Status PrepareLinks(const fs::path& folder) {
  const auto made = MakeFolder(folder);
  if (!made.ok()) return made.status();
  if (*made) return absl::OkStatus();
  struct stat info{};
  if (::lstat(folder.c_str(), &info) != 0) return SystemError(errno, "cannot look at", folder);
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder.string(), " must be a folder that user ", ::geteuid(), " owns; remove it"));
  }
  if (::chmod(folder.c_str(), kReachable) != 0) {
    return SystemError(errno, "cannot set the mode of", folder);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PrepareRuntimeDirectory(const fs::path& runtime_dir) {
  if (absl::Status status = PrepareRoot(runtime_dir); !status.ok()) return status;
  return PrepareLinks(runtime_dir / "vm");
}

}  // namespace vmbfs
