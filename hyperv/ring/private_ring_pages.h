// Ring pages in private memory, for tests.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <vector>

#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

enum class PageLayout {
  kContiguous,  // one run
  kScattered,   // no two pages side by side, in falling order
};

// Names the layout where a parameterised test prints its parameter.
inline void PrintTo(PageLayout layout, std::ostream* stream) {
  *stream << (layout == PageLayout::kContiguous ? "contiguous" : "scattered");
}

// The zeroed pages of one ring, between pages that nobody may touch.
//
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
  struct Free {
    void operator()(std::byte* data) const;
  };

  size_t slots_;
  std::unique_ptr<std::byte, Free> buffer_;
  std::vector<bool> slot_is_ours_;
  std::vector<GuestRun> runs_;
};

}  // namespace vmbfs::hyperv
