// Blobs that are small enough to be held in memory: hives, and what they are
// made from.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/blob/blob_store.h"

namespace vmbfs {

// Thread safety, of both: any thread; they wait for the disk.

// The content, of which the digest was checked.
// Errors: as BlobStore::Find; kResourceExhausted above `bytes_max`; kDataLoss
// when the disk has other bytes; kInternal.
absl::StatusOr<std::vector<std::byte>> ReadBlob(BlobStore& store, const std::string& sha256,
                                                uint64_t bytes_max);

// Stores what may be there already; it survives power loss when this returned.
// Errors: as BlobStore::Begin and BlobWriter.
absl::StatusOr<BlobInfo> StoreBlob(BlobStore& store, std::span<const std::byte> bytes);

}  // namespace vmbfs
