#include "tests/bench/measure.h"

#include <sched.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"

namespace vmbfs::bench {

absl::Status Pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(static_cast<size_t>(core), &cores);
  if (::sched_setaffinity(0, sizeof(cores), &cores) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("pinning to core ", core));
}

void Report(std::string_view row, std::string_view side, int repeat,
            const std::vector<double>& samples) {
  std::string line = absl::StrCat(std::string(row), " ", std::string(side), " ", repeat);
  for (const double sample : samples) absl::StrAppend(&line, " ", sample);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

}  // namespace vmbfs::bench
