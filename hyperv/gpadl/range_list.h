// Lists of ranges of guest pages, as GPADLs, GPA-direct packets and GPA-direct
// registrations carry them.
//
// Trust: the words are the guest's; a PageRanges that exists is well formed.
// Whether its pages exist is known when they are mapped.
// Format: shared/specs/vmbus.md section 2.8; checks: section 3.7.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace vmbfs::hyperv {

// One range: `byte_count` bytes that begin `byte_offset` bytes into the first
// of `page_frames` and end in the last.
struct PageRange {
  uint32_t byte_count = 0;   // not 0
  uint32_t byte_offset = 0;  // below a page
  std::span<const uint64_t> page_frames;
};

// A parsed list of at least one range.
//
// Thread safety: immutable.
// Bounds: at most as many words as were parsed.
class PageRanges {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  // Parses `range_count` ranges from the front of `words`; words behind the
  // last range are ignored.
  //
  // Errors: kInvalidArgument: no range, an empty range, an offset outside the
  // first page, a range that overflows 32 bits, or fewer page frames than a
  // range needs.
  static absl::StatusOr<PageRanges> Parse(std::span<const uint64_t> words, size_t range_count);

  size_t range_count() const { return ranges_.size(); }
  // REQUIRES: index < range_count(). The result lives as long as this object.
  PageRange range(size_t index) const;
  size_t page_count() const { return page_frames_.size(); }
  // Words that the ranges took; what was given beyond them is not theirs.
  size_t word_count() const { return ranges_.size() + page_frames_.size(); }

 private:
  struct Extent {
    uint32_t byte_count;
    uint32_t byte_offset;
    size_t first_page;
    size_t page_count;
  };

  PageRanges() = default;

  std::vector<Extent> ranges_;
  std::vector<uint64_t> page_frames_;  // of all ranges, in order
};

}  // namespace vmbfs::hyperv
