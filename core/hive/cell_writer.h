// The bins of a hive under construction: cells are appended and never freed.

#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/hive_format.h"

namespace vmbfs::hive {

// Thread safety: one thread.
// Bounds: bins_bytes_max, a multiple of kBinUnitBytes, at most kBinsBytesMax.
class CellWriter {
 public:
  explicit CellWriter(size_t bins_bytes_max) : bins_bytes_max_(bins_bytes_max) {}

  // A new cell for a record of so many bytes, all zero; its offset.
  // Errors: kResourceExhausted.
  absl::StatusOr<uint32_t> Allocate(size_t record_bytes);

  // REQUIRES: within the record of one cell.
  void Write(uint32_t cell_offset, size_t record_offset, std::span<const std::byte> bytes);
  template <typename Wire>
  void WriteRecord(uint32_t cell_offset, size_t record_offset, const Wire& wire) {
    Write(cell_offset, record_offset, std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire));
  }

  // The bins, behind kBaseBlockBytes zeros; what is left of the last one is a
  // free cell.
  std::vector<std::byte> Finish() &&;

 private:
  void EndBin();

  const size_t bins_bytes_max_;
  std::vector<std::byte> file_ = std::vector<std::byte>(kBaseBlockBytes);
  size_t next_cell_ = kBaseBlockBytes;  // within file_, which ends with its bin
};

}  // namespace vmbfs::hive
