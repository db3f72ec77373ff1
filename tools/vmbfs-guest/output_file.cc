#include "tools/vmbfs-guest/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

// mkstemp makes files for their owner alone; this is what open would give.
mode_t NewFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

absl::Status WriteSynced(int fd, std::span<const std::byte> data) {
  if (absl::Status written = WriteAll(fd, data); !written.ok()) return written;
  if (fchmod(fd, NewFileMode()) != 0) return absl::ErrnoToStatus(errno, "fchmod");
  if (fsync(fd) != 0) return absl::ErrnoToStatus(errno, "fsync");
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteAll(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, "write");
    }
    data = data.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WriteFileWhole(const std::string& path, std::span<const std::byte> data) {
  struct stat existing{};
  if (stat(path.c_str(), &existing) == 0 && !S_ISREG(existing.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is no regular file"));
  }
  std::string aside = path + ".XXXXXX";
  hyperv::UniqueFd fd(mkostemp(aside.data(), O_CLOEXEC));
  if (!fd) return absl::ErrnoToStatus(errno, absl::StrCat("creating a file beside ", path));
  absl::Status result = WriteSynced(fd.get(), data);
  if (result.ok() && rename(aside.c_str(), path.c_str()) != 0) {
    result = absl::ErrnoToStatus(errno, absl::StrCat("renaming to ", path));
  }
  if (!result.ok()) unlink(aside.c_str());
  return result;
}

}  // namespace vmbfs
