// `vmbfsctl imc provision`: a hive made by the daemon and given to a VM.

#pragma once

#include "absl/status/status.h"
#include "tools/vmbfsctl/commands.h"

namespace vmbfs::ctl {

// Sends the input files, the large ones as blobs, and prints the attachment.
// Errors: those of the calls, and of UploadFile.
absl::Status ProvisionImc(const Arguments& arguments, const Context& context);

}  // namespace vmbfs::ctl
