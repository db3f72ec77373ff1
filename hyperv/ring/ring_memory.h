// The memory of one ring: its control words and its data area.
//
// Trust: every byte read here is the peer's and may change at any moment. The
// data area is only ever copied, never looked at in place.

#pragma once

#include <sys/uio.h>

#include <atomic>
#include <boost/endian/conversion.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest_memory/double_mapping.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/ring/ring_format.h"

namespace vmbfs::hyperv {

// One interface over a data area that is mapped twice in a row, where no range is
// ever split, and one that is reached page by page through a table: offsets wrap
// at its end, and a copy crosses pages as it must.
//
// Thread safety: each control word has one writer among the two sides; the
// rest is the users' order.
// Ownership: keeps the guest's pages mapped while it lives.
// Bounds: kRingPagesMin to kRingPagesMax pages; 8 bytes of table a page, or the
// mappings of DoubleMapping.
class RingMemory {
 public:
  // The ring in these guest pages: the control page first, then the data. It is
  // mapped twice where GuestMemory::MapTwice can.
  //
  // Errors: kInvalidArgument for too few or too many pages, or for one that
  // lies in no region.
  static absl::StatusOr<RingMemory> Map(const GuestMemory& memory,
                                        std::span<const uint64_t> page_frames);

  // The same over runs of whole pages. A run without a region is private
  // memory, for tests; it must outlive the ring. `twice`, unless null, shows the
  // runs' data pages.
  static absl::StatusOr<RingMemory> FromRuns(std::span<const GuestRun> runs,
                                             std::shared_ptr<const DoubleMapping> twice = nullptr);

  bool mapped_twice() const { return twice_ != nullptr; }

  // Size of the data area: a multiple of the page size.
  uint32_t data_bytes() const { return data_bytes_; }

  // A control word, in this machine's byte order.
  //
  // A Store and a later Load with memory_order_seq_cst, of whichever words,
  // happen in that order for the other side too: this is the full fence that
  // the signal rules ask for between "I publish" and "does the peer wait?".
  uint32_t Load(ControlWord word, std::memory_order order) const {
    return boost::endian::little_to_native(LoadGuestWord(Word(word), order));
  }
  void Store(ControlWord word, uint32_t value, std::memory_order order) {
    StoreGuestWord(Word(word), boost::endian::native_to_little(value), order);
  }

  // An index that the peer may have written, loaded once and checked.
  // Errors: kInvalidArgument when it is not a multiple of 8 below data_bytes().
  absl::StatusOr<uint32_t> LoadIndex(ControlWord word, std::memory_order order) const;

  // Copy `to.size()` or `from.size()` bytes at `offset` of the data area.
  // REQUIRES: offset < data_bytes(), and no more bytes than data_bytes().
  void CopyOut(uint32_t offset, std::span<std::byte> to) const;
  void CopyIn(uint32_t offset, std::span<const std::byte> from);

  // Writes to `pieces` where the `bytes` at `offset` lie in our address space,
  // in order and neighbours merged; returns how many pieces there are.
  // REQUIRES: as above, and room for them: PiecesMax(bytes) is always enough.
  size_t Pieces(uint32_t offset, size_t bytes, std::span<iovec> pieces) const;
  static constexpr size_t PiecesMax(size_t bytes) { return bytes / kPageBytes + 2; }

 private:
  RingMemory() = default;

  // Calls `use(std::byte* start, size_t bytes)` for each piece of the range.
  template <typename Use>
  void ForEachPiece(uint32_t offset, size_t bytes, Use use) const;

  // Pages are aligned, so the word is.
  std::byte* Word(ControlWord word) const { return control_page_ + static_cast<size_t>(word); }

  std::byte* control_page_ = nullptr;
  std::shared_ptr<const DoubleMapping> twice_;
  std::vector<std::byte*> data_pages_;  // none where they are mapped twice
  uint32_t data_bytes_ = 0;
  std::vector<std::shared_ptr<const MappedRegion>> regions_;
};

}  // namespace vmbfs::hyperv
