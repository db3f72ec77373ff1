// What is decided of a VM when it is created.

#pragma once

#include <sys/types.h>

#include <optional>

namespace vmbfs {

struct VmOptions {
  std::optional<uid_t> owner_uid;  // the VMM's user; the daemon's own when empty
  // The VMM may pass memory that is not sealed against shrinking, and so can
  // make it vanish while it is read and written (SECURITY.md).
  bool allow_unsealed_memory = false;
  // Channels are offered as monitored, on which Linux 6.1 insists. While a guest
  // has one open, its thread wakes every millisecond to look for its signals.
  bool monitored = false;
};

}  // namespace vmbfs
