#include "hyperv/gpadl/range_list.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

absl::Status CheckRange(uint32_t byte_count, uint32_t byte_offset) {
  if (byte_count == 0) return absl::InvalidArgumentError("range of 0 bytes");
  if (byte_offset >= PageRanges::kPageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("range begins at offset ", byte_offset, " of its first page"));
  }
  const uint64_t rounded = uint64_t{byte_count} + byte_offset + PageRanges::kPageBytes - 1;
  if (rounded > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("range of ", byte_count, " bytes at offset ", byte_offset, " overflows"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PageRanges> PageRanges::Parse(std::span<const uint64_t> words, size_t range_count) {
  // Each range takes a word and at least one page frame, so this bounds the
  // loop and what it allocates by the words that are really there. Page frames
  // are not reserved for: junk behind the ranges would count.
  if (range_count == 0 || range_count > words.size() / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(range_count, " ranges cannot stand in ", words.size(), " words"));
  }
  PageRanges result;
  result.ranges_.reserve(range_count);
  for (size_t i = 0; i < range_count; ++i) {
    if (words.empty()) return absl::InvalidArgumentError("a range is missing");
    const uint32_t byte_count = static_cast<uint32_t>(words.front() & 0xFFFFFFFF);
    const uint32_t byte_offset = static_cast<uint32_t>(words.front() >> 32);
    words = words.subspan(1);
    if (absl::Status checked = CheckRange(byte_count, byte_offset); !checked.ok()) return checked;
    const size_t page_count = (uint64_t{byte_count} + byte_offset + kPageBytes - 1) / kPageBytes;
    if (page_count > words.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("range needs ", page_count, " page frames; ", words.size(), " are there"));
    }
    result.ranges_.push_back({.byte_count = byte_count,
                              .byte_offset = byte_offset,
                              .first_page = result.page_frames_.size(),
                              .page_count = page_count});
    const auto page_frames = words.first(page_count);
    result.page_frames_.insert(result.page_frames_.end(), page_frames.begin(), page_frames.end());
    words = words.subspan(page_count);
  }
  result.page_frames_.shrink_to_fit();  // these live long
  return result;
}

PageRange PageRanges::range(size_t index) const {
  const Extent& extent = ranges_[index];
  return {.byte_count = extent.byte_count,
          .byte_offset = extent.byte_offset,
          .page_frames = std::span(page_frames_).subspan(extent.first_page, extent.page_count)};
}

}  // namespace vmbfs::hyperv
