// What a request must hold before anything is done for it.
//
// Trust: names, digests and sizes are a caller's.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "core/resolver/backing_source.h"
#include "core/vm/device_kind.h"

namespace vmbfs {

inline constexpr char kImcFileName[] = "imc.hiv";

// `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
// Errors: VM_NAME_INVALID.
absl::Status CheckVmName(const std::string& name);

// Refuses the number that stands for "no user": a socket cannot be given to it.
// Errors: OWNER_INVALID.
absl::Status CheckOwner(std::optional<uid_t> owner_uid);

// Where the VM's link is. REQUIRES: a valid name.
std::filesystem::path LinkPath(const std::filesystem::path& runtime_dir, const std::string& name);

// Errors: LINK_PATH_TOO_LONG.
absl::Status CheckLinkPath(const std::filesystem::path& path);

// The blob that `content` names, as a source for the device. Waits for the disk.
// Errors: BLOB_DIGEST_INVALID, BLOB_NOT_FOUND, BLOB_STORE_FAILED,
// CONTENT_SIZE_MISMATCH, CONTENT_SIZE_INVALID, FILE_NAME_INVALID.
absl::StatusOr<BackingSource> CheckContent(DeviceKind device, const FileContent& content,
                                           uint64_t boot_bytes_max, BlobStore& blobs);

// The reasons of what a blob or its opening failed with.
absl::Status BlobError(const absl::Status& status);

}  // namespace vmbfs
