// What the host of the VM does while a statement runs: it takes the IMC device
// away and brings it back.

#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpc/client/client.h"

namespace vmbfs::conformance {

// Thread safety: one thread.
class HostControl {
 public:
  // Finds the VM and what its IMC device serves; content is uploaded and
  // attached where there is none.
  static absl::StatusOr<std::unique_ptr<HostControl>> Connect(const std::string& address,
                                                              const std::string& vm,
                                                              std::chrono::milliseconds timeout);

  // Takes the IMC device away, also while the guest has it open.
  absl::Status Detach();
  // Brings it back, with the content it had.
  absl::Status Attach();
  // Attached, whatever happened before.
  absl::Status Restore() { return attached_ ? absl::OkStatus() : Attach(); }
  // Whether the guest has the channel open, as the host sees it.
  absl::StatusOr<bool> IsOpen();

 private:
  HostControl(std::unique_ptr<rpc::Client> client, std::string vm_name);

  absl::Status Upload(std::chrono::milliseconds timeout);
  std::string AttachmentName() const;

  const std::unique_ptr<rpc::Client> client_;
  const std::string vm_name_;
  std::string blob_name_;
  bool attached_ = false;
};

}  // namespace vmbfs::conformance
