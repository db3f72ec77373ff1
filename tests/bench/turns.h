// Value and limit in turns, so that both see the same machine.

#pragma once

#include <chrono>
#include <functional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::bench {

struct Side {
  std::string_view name;  // see Report
  std::function<absl::Status(std::vector<double>&)> sample;
};

// All sides in turn, `turns` times a repeat, with `between` before each; reports
// the samples of each repeat. Errors: the first of a side.
absl::Status Interleave(std::string_view row, int repeats, int turns,
                        std::chrono::milliseconds between, const std::vector<Side>& sides);

}  // namespace vmbfs::bench
