// What each command does, once its arguments are known.

#pragma once

#include <chrono>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpc/client/client.h"
#include "tools/vmbfsctl/output.h"

namespace vmbfs::ctl {

struct Context {
  rpc::Client& client;
  Format format;
  std::chrono::milliseconds timeout;
  std::ostream& out;
  std::ostream& err;
};

// The arguments of all commands; each uses some.
struct Arguments {
  std::string vm;
  std::string device;
  std::string file;
  std::string name;  // what the guest sees; empty: the file's own
  std::string path;
  std::optional<uint32_t> owner_uid;
  bool allow_unsealed_memory = false;
  bool monitored = false;
  int32_t depth = 1;
  bool force = false;
  bool strict = false;  // of imc: refuse what is no valid hive
  // Of imc provision.
  std::vector<std::string> inputs;
  std::optional<uint32_t> sequence;
  bool rewrite_control_sets = false;
  std::string etag;
};

// Prints an attachment, and its warnings to `err`.
absl::Status ShowAttachment(const absl::StatusOr<v1::Attachment>& attachment,
                            const Context& context);

absl::Status CreateVm(const Arguments& arguments, const Context& context);
absl::Status GetVm(const Arguments& arguments, const Context& context);
absl::Status ListVms(const Arguments& arguments, const Context& context);
absl::Status DeleteVm(const Arguments& arguments, const Context& context);
absl::Status Attach(const Arguments& arguments, const Context& context);
absl::Status Swap(const Arguments& arguments, const Context& context);
absl::Status Detach(const Arguments& arguments, const Context& context);
absl::Status Inspect(const Arguments& arguments, const Context& context);

}  // namespace vmbfs::ctl
