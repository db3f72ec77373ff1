// Where a list goes on, opaque to callers.

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace vmbfs::rpc {

// Empty when `after`, the last name of a page, is.
std::string MakePageToken(const std::string& after);

// Errors: kInvalidArgument for what MakePageToken never made.
absl::StatusOr<std::string> ParsePageToken(const std::string& token);

}  // namespace vmbfs::rpc
