// The host's inspect tree: `daemon` with `data_plane/THREAD`, and `vms/NAME` with
// `link`, `bus`, `channels`, `devices` and `backings`.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/inspect/node.h"
#include "core/vm/data_plane.h"
#include "core/vm/vm_registry.h"

namespace vmbfs {

struct DaemonFacts {
  std::string state_dir;
  uint64_t uptime_s = 0;
  uint32_t spin_us = 0;
  uint32_t spin_percent = 0;
  std::vector<DataPlane::ThreadStatus> data_plane;
  std::chrono::milliseconds vm_answer_max{};  // for all VMs together
};

// Builds what `path` and `depth` show, and asks only those VMs whose own state
// is shown. A VM that does not answer in time has an `error` in its place.
// Errors: as inspect::Select.
absl::StatusOr<inspect::Node> InspectTree(const DaemonFacts& facts, const VmRegistry& registry,
                                          std::string_view path, uint32_t depth);

}  // namespace vmbfs
