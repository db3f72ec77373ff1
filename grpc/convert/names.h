// Resource names: `vms/{vm}`, `vms/{vm}/attachments/{imc|boot}`,
// `blobs/{sha256}`.
//
// Trust: names in requests are a caller's. What the parsers return has the form
// of its kind; whether there is such a thing is the host's to say.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/host.h"

namespace vmbfs::rpc {

struct AttachmentId {
  std::string vm;
  DeviceKind device{};
};

std::string VmName(const std::string& vm);
std::string AttachmentName(const std::string& vm, DeviceKind device);
std::string BlobName(const std::string& sha256);

// The ids that a VM can be made with: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
// Errors: kInvalidArgument that names `field`.
absl::Status CheckVmId(const std::string& id, std::string_view field);

// Errors, of all: kInvalidArgument that names `field` and shows the form.
absl::StatusOr<std::string> ParseVmName(std::string_view name, std::string_view field);
absl::StatusOr<AttachmentId> ParseAttachmentName(std::string_view name, std::string_view field);
// Returns the digest.
absl::StatusOr<std::string> ParseBlobName(std::string_view name, std::string_view field);

// The last part of an attachment's name.
absl::StatusOr<DeviceKind> ParseDevice(std::string_view id, std::string_view field);

}  // namespace vmbfs::rpc
