// Messages of the API for people (text) and for programs (JSON, YAML).

#pragma once

#include <iosfwd>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "vmbfs/v1/attachment.pb.h"
#include "vmbfs/v1/inspect.pb.h"
#include "vmbfs/v1/vm.pb.h"

namespace vmbfs::ctl {

enum class Format { kText, kJson, kYaml };

// Errors, of all: kInternal when the message has no form in JSON.
absl::Status Print(const v1::Vm& vm, Format format, std::ostream& out);
absl::Status Print(const v1::ListVmsResponse& vms, Format format, std::ostream& out);
absl::Status Print(const v1::Attachment& attachment, Format format, std::ostream& out);
absl::Status Print(const v1::Node& node, Format format, std::ostream& out);

// The same document in YAML: block style, the order kept, strings quoted.
absl::StatusOr<std::string> YamlFromJson(const std::string& json);

}  // namespace vmbfs::ctl
