#include "grpc/server/socket_path.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace vmbfs::rpc {
namespace {

std::string Reason(int error) { return std::generic_category().message(error); }

// What connect(2) says: 0 or an errno.
int TryConnect(const sockaddr_un& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  int error = 0;
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    error = errno;
  }
  ::close(fd);
  return error;
}

}  // namespace

absl::Status ClearSocketPath(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat(path.native(), ": a socket's path has at most ",
                                                   sizeof address.sun_path - 1,
                                                   " bytes; choose a shorter folder"));
  }
  std::memcpy(address.sun_path, path.c_str(), path.native().size());

  struct stat found{};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(path.native(), ": ", Reason(errno)));
  }
  if (!S_ISSOCK(found.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.native(), " exists and is not a socket: move it away"));
  }
  const int error = TryConnect(address);
  if (error == 0 || error == EAGAIN) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.native(), ": another process serves this socket; end it first"));
  }
  if (error != ECONNREFUSED) {
    return absl::InternalError(absl::StrCat(path.native(), ": ", Reason(error)));
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return absl::InternalError(
        absl::StrCat(path.native(), ": cannot remove the old socket: ", Reason(errno)));
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::rpc
