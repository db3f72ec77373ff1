#include "core/host/descriptor_room.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
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

// SIZE_MAX: there is no limit.
size_t DescriptorsMax() {
  rlimit limit{};
  const bool limited = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return limited ? limit.rlim_cur : SIZE_MAX;
}

absl::Status Check(size_t more, size_t kept_back, size_t max) {
  const size_t used = OpenDescriptors();
  if (used + more + kept_back <= max) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the daemon has ", used, " of at most ", max, " descriptors open and keeps ", kept_back,
      " for VMMs and calls; raise its limit (LimitNOFILE of a systemd unit, ulimit -n)"));
}

}  // namespace

size_t DescriptorsKeptBack(size_t max) { return std::min<size_t>(max / 8, 1024); }

absl::Status CheckDescriptorRoom(size_t more) {
  const size_t max = DescriptorsMax();
  return Check(more, DescriptorsKeptBack(max), max);
}

absl::Status CheckDescriptorsToStart() { return Check(0, kDescriptorsToStart, DescriptorsMax()); }

}  // namespace vmbfs
