#include "hyperv/gpadl/ring_range.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// A control page and at least one data page.
constexpr size_t kRingPagesMin = 2;

}  // namespace

absl::StatusOr<RingSplit> SplitRing(const PageRanges* ring, uint32_t downstream_page_offset) {
  if (ring == nullptr) return absl::InvalidArgumentError("no such GPADL");
  if (ring->range_count() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("GPADL of ", ring->range_count(), " ranges"));
  }
  const PageRange range = ring->range(0);
  if (range.byte_offset != 0 || range.byte_count % PageRanges::kPageBytes != 0) {
    return absl::InvalidArgumentError("GPADL is not of whole pages");
  }
  const size_t page_count = range.page_frames.size();
  if (downstream_page_offset < kRingPagesMin || downstream_page_offset > page_count ||
      page_count - downstream_page_offset < kRingPagesMin) {
    return absl::InvalidArgumentError(absl::StrCat(
        "downstream page offset ", downstream_page_offset, " of ", page_count, " pages"));
  }
  return RingSplit{.whole = range.page_frames,
                   .incoming = range.page_frames.first(downstream_page_offset),
                   .outgoing = range.page_frames.subspan(downstream_page_offset)};
}

}  // namespace vmbfs::hyperv
