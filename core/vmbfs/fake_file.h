// A file that is slow or broken as a test wishes.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backing/backing.h"
#include "core/backing/memory_file.h"

namespace vmbfs {

class FakeFile final : public File {
 public:
  explicit FakeFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  // What ReadNow has at hand at most; nullopt: nothing, it says kUnavailable.
  std::optional<size_t> at_hand_bytes;
  absl::Status read_now_error;
  absl::Status read_blocking_error;
  // The file ends ahead of its size by so many bytes.
  size_t missing_bytes = 0;

  // What was asked for ahead, in order; the offset, then the bytes.
  mutable std::vector<std::pair<uint64_t, uint64_t>> ahead;

  uint64_t size_bytes() const override { return bytes_.size_bytes(); }

  absl::StatusOr<size_t> ReadNow(uint64_t offset, std::span<const iovec> pieces) const override {
    if (!read_now_error.ok()) return read_now_error;
    if (!at_hand_bytes.has_value()) return absl::Status(absl::StatusCode::kUnavailable, "");
    std::vector<iovec> clamped;
    size_t left = *at_hand_bytes;
    for (const iovec& piece : pieces) {
      clamped.push_back({piece.iov_base, std::min(left, piece.iov_len)});
      left -= clamped.back().iov_len;
    }
    return bytes_.ReadNow(offset, clamped);
  }

  absl::StatusOr<size_t> ReadBlocking(uint64_t offset, std::span<std::byte> out) const override {
    if (!read_blocking_error.ok()) return read_blocking_error;
    return bytes_.ReadBlocking(offset, out.first(out.size() - std::min(out.size(), missing_bytes)));
  }

  void ReadAhead(uint64_t offset, uint64_t bytes) const override {
    ahead.emplace_back(offset, bytes);
  }

 private:
  MemoryFile bytes_;
};

}  // namespace vmbfs
