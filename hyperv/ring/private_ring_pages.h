// Ring pages in private memory, for tests.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/double_mapping.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

enum class PageLayout {
  kContiguous,  // one run
  kScattered,   // no two pages side by side, in falling order
  kTwice,       // scattered, and the data mapped twice in a row
};
inline constexpr std::array kPageLayouts = {PageLayout::kContiguous, PageLayout::kScattered,
                                            PageLayout::kTwice};

// Names the layout where a parameterised test prints its parameter.
inline void PrintTo(PageLayout layout, std::ostream* stream) {
  *stream << (layout == PageLayout::kContiguous  ? "contiguous"
              : layout == PageLayout::kScattered ? "scattered"
                                                 : "twice");
}

// The layout that a fuzzer's input chooses.
constexpr PageLayout PageLayoutOf(bool scattered, bool twice) {
  if (twice) return PageLayout::kTwice;
  return scattered ? PageLayout::kScattered : PageLayout::kContiguous;
}

// The zeroed pages of one ring, between pages that nobody may touch.
//
// Bounds: DoubleMapping::kPiecesMax data pages with kTwice.
// Ownership: must outlive what Map returned.
class PrivateRingPages {
 public:
  PrivateRingPages(size_t data_pages, PageLayout layout);

  // A view of the same pages at each call: one for each side, and one for a
  // test that looks at the bytes or breaks them.
  RingMemory Map() const;

  // Whether the bytes around the ring's pages still are what they were.
  bool OutsideIsUntouched() const;

 private:
  struct Unmap {
    void operator()(std::byte* data) const;
    size_t bytes = 0;
  };

  const size_t slots_;
  const UniqueFd file_;  // of the slots
  std::unique_ptr<std::byte, Unmap> buffer_;
  std::vector<bool> slot_is_ours_;
  std::vector<GuestRun> runs_;
  std::vector<FilePiece> data_pieces_;  // none unless they are mapped twice
};

}  // namespace vmbfs::hyperv
