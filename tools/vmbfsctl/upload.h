// A local file on its way to the daemon's blobs.

#pragma once

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "grpc/client/client.h"

namespace vmbfs::ctl {

// The blob with the file's content; it is not sent when the daemon has it
// already. `timeout` is for each call; an upload gets a second more for every
// 4 MiB.
//
// Errors: kFailedPrecondition for what is no regular file or cannot be read;
// those of the calls, among them kInvalidArgument when the file changes under
// the upload.
absl::StatusOr<v1::Blob> UploadFile(rpc::Client& client, const std::string& path,
                                    std::chrono::milliseconds timeout);

}  // namespace vmbfs::ctl
