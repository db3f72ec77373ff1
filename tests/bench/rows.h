// The rows of the table that a guest measures, each beside its limit, in turns.
// README.md says what each is between which points.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "tests/bench/measure.h"

namespace vmbfs::bench {

struct RowOptions {
  Cores cores;
  int repeats = 5;
  std::string link;        // of the VM that reads
  std::string other_link;  // of the VM beside which it reads (ScaleRow)
  std::string file;        // what the VM's boot device serves, as a file
};

// Each reports samples on stdout and returns the first error it meets.
absl::Status AwakeRow(const RowOptions& options);       // read_12k_awake
absl::Status AsleepRow(const RowOptions& options);      // read_12k_asleep
absl::Status SequentialRow(const RowOptions& options);  // ring_sequential
absl::Status RdmaRows(const RowOptions& options);       // rdma_1m, rdma_7m
absl::Status ScaleRow(const RowOptions& options);       // scale_1000

}  // namespace vmbfs::bench
