#include "tests/bench/turns.h"

#include <thread>

#include "tests/bench/measure.h"

namespace vmbfs::bench {

absl::Status Interleave(std::string_view row, int repeats, int turns,
                        std::chrono::milliseconds between, const std::vector<Side>& sides) {
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<std::vector<double>> samples(sides.size());
    for (int turn = 0; turn < turns; ++turn) {
      for (size_t side = 0; side < sides.size(); ++side) {
        std::this_thread::sleep_for(between);
        if (absl::Status status = sides[side].sample(samples[side]); !status.ok()) return status;
      }
    }
    for (size_t side = 0; side < sides.size(); ++side) {
      Report(row, sides[side].name, repeat, samples[side]);
    }
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::bench
