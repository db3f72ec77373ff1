// The base block, bins and cells of a hive that somebody gave us.
//
// Trust: every byte is hostile until it is checked here or by the reader of its
// record. Rules: shared/specs/imc.md sections 2.1, 2.2 and 2.5.

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/hive/hive_format.h"

namespace vmbfs::hive {

// "key at 0x1020: its parent is 0x40, not 0x20", with a position in the file.
absl::Status RefuseAt(absl::string_view what, uint32_t cell_offset, absl::string_view why);

// The record in a cell: at least as long as what was written there, since cells
// are rounded up.
class Record {
 public:
  Record(uint32_t offset, std::span<const std::byte> bytes) : offset_(offset), bytes_(bytes) {}

  uint32_t offset() const { return offset_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  bool Holds(size_t position, size_t bytes) const {
    return position <= bytes_.size() && bytes <= bytes_.size() - position;
  }

  // REQUIRES: Holds(position, sizeof(Wire)).
  template <typename Wire>
  Wire At(size_t position) const {
    std::array<std::byte, sizeof(Wire)> copy;
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(position), sizeof(Wire), copy.begin());
    return std::bit_cast<Wire>(copy);
  }

 private:
  uint32_t offset_;
  std::span<const std::byte> bytes_;
};

// Thread safety: one thread.
// Ownership: refers to the file's bytes.
// Bounds: time and memory in proportion to the file's size.
class HiveCells {
 public:
  // Checks the base block and that cells tile the bins.
  // Errors: kInvalidArgument with offset and reason.
  static absl::StatusOr<HiveCells> Parse(std::span<const std::byte> file);

  const BaseBlock& base() const { return base_; }
  uint32_t minor() const { return base_.minor.value(); }

  // The record of a cell that is in use and that nobody has claimed: a cell has
  // one user, so no structure meets itself. `what` is for the message.
  // Errors: kInvalidArgument.
  absl::StatusOr<Record> Claim(uint32_t offset, absl::string_view what);

  // Cells in use that nobody has claimed, and bytes behind the bins.
  size_t unclaimed() const { return in_use_ - claimed_; }
  size_t trailing_bytes() const { return trailing_bytes_; }

 private:
  struct Cell {
    uint32_t offset = 0;
    uint32_t bytes = 0;
    bool in_use = false;
    bool claimed = false;
  };

  absl::Status ParseBin(size_t bin_offset, size_t& bin_bytes);

  BaseBlock base_;
  std::span<const std::byte> bins_;
  std::vector<Cell> cells_;  // ascending
  size_t in_use_ = 0;
  size_t claimed_ = 0;
  size_t trailing_bytes_ = 0;
};

}  // namespace vmbfs::hive
