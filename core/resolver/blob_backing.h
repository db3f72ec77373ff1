// The backing kind "blob": one file with the bytes of one blob.

#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "core/blob/blob_store.h"
#include "core/resolver/resolver.h"

namespace vmbfs {

inline constexpr std::string_view kBlobKind = "blob";

// Resolving opens the blob. Errors then: as BlobStore::OpenForRead, and
// kInvalidArgument for a name that cannot stand in a tree.
// REQUIRES: `blobs` outlives the resolver.
absl::Status RegisterBlobKind(Resolver& resolver, BlobStore& blobs);

}  // namespace vmbfs
