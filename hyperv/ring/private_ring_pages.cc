#include "hyperv/ring/private_ring_pages.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace vmbfs::hyperv {
namespace {

constexpr auto kOutside = std::byte{0xA5};

}  // namespace

void PrivateRingPages::Free::operator()(std::byte* data) const { std::free(data); }

PrivateRingPages::PrivateRingPages(size_t data_pages, PageLayout layout)
    : slots_(2 * (data_pages + 1) + 1),
      buffer_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, slots_ * kPageBytes))),
      slot_is_ours_(slots_, false) {
  const size_t pages = data_pages + 1;
  std::fill_n(buffer_.get(), slots_ * kPageBytes, kOutside);
  for (size_t i = 0; i < pages; ++i) {
    const size_t slot = layout == PageLayout::kContiguous ? 1 + i : 2 * (pages - i) - 1;
    std::byte* page = buffer_.get() + slot * kPageBytes;
    std::fill_n(page, kPageBytes, std::byte{0});
    slot_is_ours_[slot] = true;
    runs_.push_back({nullptr, page, kPageBytes});
  }
}

RingMemory PrivateRingPages::Map() const {
  absl::StatusOr<RingMemory> memory = RingMemory::FromRuns(runs_);
  if (!memory.ok()) std::abort();
  return *std::move(memory);
}

bool PrivateRingPages::OutsideIsUntouched() const {
  for (size_t slot = 0; slot < slots_; ++slot) {
    if (slot_is_ours_[slot]) continue;
    // All bytes are the first one: one comparison of the page with itself.
    const std::byte* page = buffer_.get() + slot * kPageBytes;
    if (page[0] != kOutside || std::memcmp(page, page + 1, kPageBytes - 1) != 0) return false;
  }
  return true;
}

}  // namespace vmbfs::hyperv
