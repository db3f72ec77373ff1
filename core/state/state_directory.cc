#include "core/state/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <system_error>

#include "absl/strings/str_cat.h"

namespace vmbfs::state {
namespace {

namespace fs = std::filesystem;

absl::Status SystemError(int error, const char* what, const fs::path& path) {
  return absl::InternalError(
      absl::StrCat(what, " ", path.string(), ": ", std::generic_category().message(error)));
}

}  // namespace

absl::Status SyncFolder(const fs::path& folder) {
  const hyperv::UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return SystemError(errno, "cannot sync the folder", folder);
  return absl::OkStatus();
}

absl::Status MakeFoldersAbove(const fs::path& path) {
  fs::path folder;
  for (const fs::path& part : fs::absolute(path).lexically_normal().parent_path()) {
    const fs::path parent = folder;
    folder /= part;
    if (::mkdir(folder.c_str(), 0711) != 0) {
      if (errno == EEXIST) continue;
      return SystemError(errno, "cannot make the folder", folder);
    }
    // Whatever the umask is.
    if (::chmod(folder.c_str(), 0711) != 0) {
      return SystemError(errno, "cannot set the mode of", folder);
    }
    if (absl::Status status = SyncFolder(parent); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status MakeStateDirectory(const fs::path& folder) {
  if (absl::Status status = MakeFoldersAbove(folder); !status.ok()) return status;
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return SystemError(errno, "cannot make the state directory", folder);
  }
  // What the store holds is the daemon's alone.
  if (::chmod(folder.c_str(), 0700) != 0) {
    return SystemError(errno, "cannot restrict the state directory", folder);
  }
  // Also when it was there: whoever made it may have ended before this.
  return SyncFolder(fs::absolute(folder).lexically_normal().parent_path());
}

absl::StatusOr<hyperv::UniqueFd> LockStateDirectory(const fs::path& folder) {
  const fs::path path = folder / "lock";
  hyperv::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return SystemError(errno, "cannot open", path);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return SystemError(errno, "cannot lock", path);
  return absl::FailedPreconditionError(absl::StrCat("another daemon holds the state directory ",
                                                    folder.string(),
                                                    "; end it, or use another directory"));
}

}  // namespace vmbfs::state
