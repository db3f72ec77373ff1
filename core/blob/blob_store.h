// Content by SHA-256, in files beside the state.
//
// Trust: the bytes are an uploader's; only their digest and size matter here.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {

struct BlobInfo {
  std::string sha256;  // 64 lower-case hex digits
  uint64_t size_bytes = 0;
};

// One upload on its way in. Destroying it before Finish leaves nothing behind.
// Thread safety: one thread at a time; calls wait for the disk.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;
  // Errors: kResourceExhausted (above the limit, or no room on the disk), kInternal.
  virtual absl::Status Write(std::span<const std::byte> bytes) = 0;
  // Syncs, renames and syncs the directory. On success the blob survives power loss.
  // A blob of the name that is there already is kept when it has these bytes, so that
  // VMs go on with the file they have open; a damaged one is replaced.
  // Errors: kInvalidArgument when `expected_sha256` is given and differs;
  // kInternal.
  virtual absl::StatusOr<BlobInfo> Finish(const std::optional<std::string>& expected_sha256) = 0;
};

// A folder of blobs: `DIR/ab/abcdef….`, mode 0400, in folders of mode 0700.
// Thread safety: any thread; calls wait for the disk.
class BlobStore {
 public:
  // Makes the folder when missing and removes uploads a crash left unfinished.
  static absl::StatusOr<std::unique_ptr<BlobStore>> Open(const std::filesystem::path& folder);
  virtual ~BlobStore() = default;

  // Begins an upload of at most `bytes_max` bytes.
  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> Begin(uint64_t bytes_max) = 0;
  // Errors: kInvalidArgument (not a digest), kNotFound.
  virtual absl::StatusOr<BlobInfo> Find(const std::string& sha256) = 0;
  // Opens a blob for reading. Errors as Find; kDataLoss when the file's size is
  // not `size_bytes`.
  virtual absl::StatusOr<hyperv::UniqueFd> OpenForRead(const std::string& sha256,
                                                       uint64_t size_bytes) = 0;
};

bool IsSha256Hex(std::string_view text);
std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace vmbfs
