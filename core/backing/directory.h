// A directory of a backing: to a guest it is a flag and nothing to read.

#pragma once

#include "absl/status/status.h"
#include "core/backing/backing.h"

namespace vmbfs {

// Thread safety: immutable; any thread.
class Directory final : public File {
 public:
  bool is_directory() const override { return true; }
  uint64_t size_bytes() const override { return 0; }
  absl::StatusOr<size_t> ReadNow(uint64_t, std::span<const iovec>) const override {
    return absl::FailedPreconditionError("a directory cannot be read");
  }
  absl::StatusOr<size_t> ReadBlocking(uint64_t, std::span<std::byte>) const override {
    return absl::FailedPreconditionError("a directory cannot be read");
  }
};

}  // namespace vmbfs
