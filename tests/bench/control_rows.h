// The rows of the control plane, each beside its limit, in turns.
// README.md says what each is between which points.

#pragma once

#include <string>

#include "absl/status/status.h"

namespace vmbfs::bench {

struct ControlOptions {
  int repeats = 5;
  std::string server;       // the daemon's address; it has the VM `reader`, with a boot device
  std::string echo;         // the address of a BareEcho
  std::string echo_socket;  // where to serve one
  std::string folder;       // on the file system that has the daemon's state
};

// Each reports samples on stdout and returns the first error it meets.
absl::Status UnaryReadRow(const ControlOptions& options);
absl::Status DurableAttachRow(const ControlOptions& options);

// Answers on `echo_socket` what `server` said of the VM, until stdin ends.
absl::Status ServeEcho(const ControlOptions& options);

}  // namespace vmbfs::bench
