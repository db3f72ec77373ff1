#include "core/host/descriptor_room.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

constexpr char kOpenDescriptors[] = "/proc/self/fd";

size_t OpenDescriptors() {
  // The folder's size is their number, since Linux 6.2; before it is 0.
  struct stat info{};
  if (::stat(kOpenDescriptors, &info) == 0 && info.st_size > 0) {
    return static_cast<size_t>(info.st_size);
  }
  std::error_code error;
  const std::filesystem::directory_iterator entries(kOpenDescriptors, error);
  return error ? 0 : static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

}  // namespace

size_t DescriptorsKeptBack(size_t max) { return std::min<size_t>(max / 8, 1024); }

absl::Status CheckDescriptorRoom(size_t more) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return absl::OkStatus();
  }
  const size_t max = limit.rlim_cur;
  const size_t used = OpenDescriptors();
  const size_t kept_back = DescriptorsKeptBack(max);
  if (used + more + kept_back <= max) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the daemon has ", used, " of at most ", max, " descriptors open and keeps ", kept_back,
      " for VMMs and calls; raise its limit (LimitNOFILE of a systemd unit, ulimit -n)"));
}

}  // namespace vmbfs
