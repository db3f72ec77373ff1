// What gRPC itself costs: a server with the options of the daemon's, whose one
// call answers on the spot with a message that it has.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "vmbfs/v1/vm.pb.h"

namespace vmbfs::bench {

// Thread safety: none; one thread makes and destroys it.
class BareEcho {
 public:
  // Serves GetVm on a Unix socket: every answer is `answer`, whatever is asked.
  // Errors: kInternal when it cannot listen.
  static absl::StatusOr<std::unique_ptr<BareEcho>> Start(const std::string& socket_path,
                                                         v1::Vm answer);
  virtual ~BareEcho() = default;
};

}  // namespace vmbfs::bench
