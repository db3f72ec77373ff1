// The two rings of a channel in one GPADL: what an open must have before memory
// is looked at.
//
// Trust: the list and the offset are the guest's. Rules: shared/specs/vmbus.md
// sections 3.3 and 4.1.
// Thread safety: any thread; no state.

#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "hyperv/gpadl/range_list.h"

namespace vmbfs::hyperv {

// Page frames of both rings; they live as long as the PageRanges they are of.
struct RingSplit {
  std::span<const uint64_t> whole;     // both, in order
  std::span<const uint64_t> incoming;  // guest to host
  std::span<const uint64_t> outgoing;  // host to guest
};

// Splits `ring` at `downstream_page_offset`.
//
// Errors: kInvalidArgument: no GPADL (nullptr), not one range of whole pages, or
// fewer than two pages (a control page and a data page) on either side.
absl::StatusOr<RingSplit> SplitRing(const PageRanges* ring, uint32_t downstream_page_offset);

}  // namespace vmbfs::hyperv
