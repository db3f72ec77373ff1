// Pieces of files, mapped twice in a row: what runs over the end of the first
// copy goes on at its start, so that nothing in it is ever split.
//
// Trust: the descriptors are files in memory that were checked before; what they
// hold is the guest's, and may vanish (guest_access.h).

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/mapping_budget.h"

namespace vmbfs::hyperv {

// Whole pages of a file.
struct FilePiece {
  int fd = -1;  // used while mapping only
  uint64_t offset = 0;
  size_t bytes = 0;
};

// Thread safety: the last holder may be on any thread.
// Bounds: kPiecesMax pieces, each mapped twice, and a share of the budget for each
// mapping.
class DoubleMapping {
 public:
  static constexpr size_t kPiecesMax = 16;

  // The pieces side by side, and once more behind them.
  //
  // Errors: kResourceExhausted  too many pieces, or mappings of the process;
  //         kUnimplemented      the files are not mapped by pages of 4 KiB (huge
  //                             pages); none has a mapping then.
  static absl::StatusOr<std::shared_ptr<const DoubleMapping>> Make(
      std::span<const FilePiece> pieces, MappingBudget& budget);

  ~DoubleMapping();
  DoubleMapping(const DoubleMapping&) = delete;
  DoubleMapping& operator=(const DoubleMapping&) = delete;

  // 2 * bytes() may be touched.
  std::byte* data() const { return data_; }
  // Of one copy.
  size_t bytes() const { return bytes_; }

  // Whether `watch` missed any of the `bytes` at `offset`, in either copy.
  bool Missed(const VanishedMemoryWatch& watch, size_t offset, size_t bytes) const;

 private:
  DoubleMapping(std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* const data_;
  const size_t bytes_;
  std::vector<MappingBudget::Share> shares_;
};

}  // namespace vmbfs::hyperv
