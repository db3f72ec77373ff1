// A file whose bytes are in memory.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/backing/backing.h"

namespace vmbfs {

// Thread safety: immutable; any thread. Never answers kUnavailable.
class MemoryFile final : public File {
 public:
  explicit MemoryFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  uint64_t size_bytes() const override { return bytes_.size(); }
  absl::StatusOr<size_t> ReadNow(uint64_t offset, std::span<const iovec> pieces) const override;
  absl::StatusOr<size_t> ReadBlocking(uint64_t offset, std::span<std::byte> out) const override;

 private:
  const std::vector<std::byte> bytes_;
};

}  // namespace vmbfs
