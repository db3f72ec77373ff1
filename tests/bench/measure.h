// How the bench measures: clock, pinning, and the lines it reports samples with.

#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::bench {

// The guest's side and the data plane's, on different cores; a machine of one
// core shares it, and says so.
struct Cores {
  int guest = 0;
  int host = 1;
};

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Runs `work` and returns how long it took, in microseconds.
template <typename Work>
double Microseconds(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return SecondsSince(start) * 1e6;
}

// A moment between two looks at a word that another core writes.
inline void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The calling thread stays on `core`. Errors: the system's.
absl::Status Pin(int core);

// One line on stdout for each set: `ROW SIDE REPEAT SAMPLE…`. SIDE is `value`,
// what the row is about; `limit`, what stands beside it; or another word for
// what is only printed.
void Report(std::string_view row, std::string_view side, int repeat,
            const std::vector<double>& samples);

}  // namespace vmbfs::bench
