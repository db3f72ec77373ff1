// Rows of the state database, checked for what this program writes.
//
// Trust: an administrator may have edited them.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/state/sqlite_database.h"
#include "core/state/state_store.h"

namespace vmbfs::state {

// kDataLoss with the place of a value that is not what this program writes.
absl::Status BadRow(const char* table, const std::string& key, const char* column);

// Columns: name, owner_uid, create_time_us, revision,
// allow_unsealed_memory, monitored. Errors: kDataLoss.
absl::StatusOr<VmRecord> ParseVm(const Statement& row);

// Columns: vm, device, source_kind, sha256, size_bytes, file_name,
// create_time_us, update_time_us, revision. Errors: kDataLoss.
absl::StatusOr<AttachmentRecord> ParseAttachment(const Statement& row);

}  // namespace vmbfs::state
