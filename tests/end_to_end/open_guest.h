// A guest in user space with the imc channel open, for the programs beside it.

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest.h"

namespace vmbfs {

// Thread safety: one thread at a time. Errors: as hyperv::Guest's.
class OpenGuest {
 public:
  // Starts a guest on a link and opens its imc channel. `profile` is "linux" or
  // "firmware".
  static absl::StatusOr<OpenGuest> Start(const std::string& socket_path, std::string_view profile);

  // Reads imc.hiv over the open channel and returns its SHA-256.
  absl::StatusOr<std::string> ReadDigest();
  // Closes the channel and opens it again.
  absl::Status Reopen();
  // Closes the channel and unloads.
  absl::Status Finish();

 private:
  absl::Status Open();

  std::unique_ptr<hyperv::Guest> guest_;
  std::unique_ptr<hyperv::GuestChannel> channel_;
};

}  // namespace vmbfs
