// A guest in user space with the imc channel open, for the programs beside it.

#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guid/guid.h"

namespace vmbfs {

// Thread safety: one thread at a time. Errors: as hyperv::Guest's.
class OpenGuest {
 public:
  // Starts a guest on a link and opens its imc channel. `profile` is "linux" or
  // "firmware", `vmm` "direct", "mediated" or "channel".
  static absl::StatusOr<OpenGuest> Start(const std::string& socket_path, std::string_view profile,
                                         std::string_view vmm);

  // Reads imc.hiv over the open channel and returns its SHA-256.
  absl::StatusOr<std::string> ReadDigest();
  // The same of `name`, ASCII, on the boot device: its channel is opened at the
  // first call and stays open beside the other.
  absl::StatusOr<std::string> ReadBootDigest(std::string_view name);
  // Closes the imc channel and opens it again.
  absl::Status Reopen();
  // Closes what is open and unloads.
  absl::Status Finish();

 private:
  absl::StatusOr<std::unique_ptr<hyperv::GuestChannel>> Open(const hyperv::Guid& instance);

  std::unique_ptr<hyperv::Guest> guest_;
  std::unique_ptr<hyperv::GuestChannel> imc_;
  std::unique_ptr<hyperv::GuestChannel> boot_;
};

}  // namespace vmbfs
