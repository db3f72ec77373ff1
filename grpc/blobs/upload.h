// One upload as a series of messages; nothing of gRPC in it.
//
// Trust: the messages are a caller's.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "vmbfs/v1/blob.pb.h"

namespace vmbfs::rpc {

inline constexpr size_t kChunkBytesMax = 1 << 20;

// Destroying it before Finish leaves nothing behind.
//
// Thread safety: one thread at a time; calls wait for the disk.
// Bounds: Host::upload_bytes_max() in all; kChunkBytesMax a message.
class Upload {
 public:
  // REQUIRES: `host` outlives the upload.
  explicit Upload(Host& host) : host_(host) {}

  // Takes the next message: options first, then chunks.
  // Errors: kInvalidArgument (out of order, a field is wrong, more bytes than
  // announced), kResourceExhausted (too large, no room), kInternal (disk).
  absl::Status Take(const v1::UploadBlobRequest& message);

  // Stores what came; the stream has ended.
  // Errors: kInvalidArgument (fewer bytes than announced, another digest than
  // expected), kInternal (disk).
  absl::StatusOr<BlobInfo> Finish();

 private:
  absl::Status Begin(const v1::UploadBlobRequest::Options& options);
  absl::Status Write(const std::string& chunk);

  Host& host_;
  std::unique_ptr<BlobWriter> writer_;  // null before the options
  std::optional<std::string> expected_sha256_;
  uint64_t announced_bytes_ = 0;
  uint64_t received_bytes_ = 0;
};

}  // namespace vmbfs::rpc
