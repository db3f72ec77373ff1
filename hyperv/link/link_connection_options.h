// What a link's owner decides of its connections.

#pragma once

#include <chrono>
#include <memory>

#include "hyperv/file_descriptor/fd_closer.h"

namespace vmbfs::hyperv {

struct LinkConnectionOptions {
  // Closes descriptors that came in; null: they are closed in place. Each
  // received one has it, wherever it goes.
  std::shared_ptr<FdCloser> closer;
  // Until the first frame, which is HELLO or a violation, is there as a whole:
  // a peer that says nothing may not hold its VM's one connection.
  std::chrono::milliseconds first_frame_timeout{10'000};
  // For the socket to take a byte while frames wait.
  std::chrono::milliseconds output_timeout{30'000};
};

}  // namespace vmbfs::hyperv
