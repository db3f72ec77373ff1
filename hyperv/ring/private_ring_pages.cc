#include "hyperv/ring/private_ring_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace vmbfs::hyperv {
namespace {

constexpr auto kOutside = std::byte{0xA5};

UniqueFd NewFile(size_t bytes) {
  UniqueFd file(::memfd_create("ring", MFD_CLOEXEC));
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) std::abort();
  return file;
}

std::byte* MapFile(const UniqueFd& file, size_t bytes) {
  void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) std::abort();
  return static_cast<std::byte*>(data);
}

}  // namespace

void PrivateRingPages::Unmap::operator()(std::byte* data) const { ::munmap(data, bytes); }

PrivateRingPages::PrivateRingPages(size_t data_pages, PageLayout layout)
    : slots_(2 * (data_pages + 1) + 1),
      file_(NewFile(slots_ * kPageBytes)),
      buffer_(MapFile(file_, slots_ * kPageBytes), Unmap{slots_ * kPageBytes}),
      slot_is_ours_(slots_, false) {
  const size_t pages = data_pages + 1;
  std::fill_n(buffer_.get(), slots_ * kPageBytes, kOutside);
  for (size_t i = 0; i < pages; ++i) {
    const size_t slot = layout == PageLayout::kContiguous ? 1 + i : 2 * (pages - i) - 1;
    std::byte* page = buffer_.get() + slot * kPageBytes;
    std::fill_n(page, kPageBytes, std::byte{0});
    slot_is_ours_[slot] = true;
    runs_.push_back({nullptr, page, kPageBytes});
    if (i > 0 && layout == PageLayout::kTwice) {
      data_pieces_.push_back({file_.get(), slot * kPageBytes, kPageBytes});
    }
  }
}

RingMemory PrivateRingPages::Map() const {
  std::shared_ptr<const DoubleMapping> twice;
  if (!data_pieces_.empty()) {
    auto mapping = DoubleMapping::Make(data_pieces_, MappingBudget::OfRings());
    if (!mapping.ok()) std::abort();
    twice = *std::move(mapping);
  }
  absl::StatusOr<RingMemory> memory = RingMemory::FromRuns(runs_, std::move(twice));
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
