#include "hyperv/ring/ring_memory.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {

absl::StatusOr<RingMemory> RingMemory::Map(const GuestMemory& memory,
                                           std::span<const uint64_t> page_frames) {
  if (page_frames.size() < kRingPagesMin || page_frames.size() > kRingPagesMax) {
    return absl::InvalidArgumentError(absl::StrCat("ring has ", page_frames.size(), " pages; ",
                                                   kRingPagesMin, " to ", kRingPagesMax,
                                                   " are possible"));
  }
  auto runs = memory.MapPages(page_frames);
  if (!runs.ok()) return runs.status();
  auto twice = memory.MapTwice(page_frames.subspan(1));
  return FromRuns(*runs, twice.ok() ? *std::move(twice) : nullptr);
}

absl::StatusOr<RingMemory> RingMemory::FromRuns(std::span<const GuestRun> runs,
                                                std::shared_ptr<const DoubleMapping> twice) {
  size_t pages = 0;
  for (const GuestRun& run : runs) {
    if (run.bytes == 0 || run.bytes % kPageBytes != 0 || run.bytes / kPageBytes > kRingPagesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("ring memory has a run of ", run.bytes, " bytes"));
    }
    pages += run.bytes / kPageBytes;
  }
  if (pages < kRingPagesMin || pages > kRingPagesMax) {
    return absl::InvalidArgumentError(absl::StrCat("ring has ", pages, " pages; ", kRingPagesMin,
                                                   " to ", kRingPagesMax, " are possible"));
  }

  RingMemory ring;
  ring.data_bytes_ = static_cast<uint32_t>((pages - 1) * kPageBytes);
  ring.twice_ = std::move(twice);
  if (ring.twice_ == nullptr) ring.data_pages_.reserve(pages - 1);
  for (const GuestRun& run : runs) {
    for (size_t offset = 0; offset < run.bytes; offset += kPageBytes) {
      if (ring.control_page_ == nullptr) {
        ring.control_page_ = run.data + offset;
      } else if (ring.twice_ == nullptr) {
        ring.data_pages_.push_back(run.data + offset);
      }
    }
    if (run.region != nullptr &&
        std::find(ring.regions_.begin(), ring.regions_.end(), run.region) == ring.regions_.end()) {
      ring.regions_.push_back(run.region);
    }
  }
  return ring;
}

absl::StatusOr<uint32_t> RingMemory::LoadIndex(ControlWord word, std::memory_order order) const {
  const uint32_t guest_index = Load(word, order);
  if (!IsRingIndex(guest_index, data_bytes_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring index `", word == ControlWord::kIn ? "in" : "out", "` is ", guest_index,
                     "; a multiple of ", kRingUnitBytes, " below ", data_bytes_, " is needed"));
  }
  return guest_index;
}

template <typename Use>
void RingMemory::ForEachPiece(uint32_t offset, size_t bytes, Use use) const {
  // Ours to get right, the guest's to exploit if we do not.
  if (offset >= data_bytes_ || bytes > data_bytes_) std::abort();
  if (twice_ != nullptr) {
    if (bytes > 0) use(twice_->data() + offset, bytes);
    return;
  }
  size_t page = offset / kPageBytes;
  size_t within = offset % kPageBytes;
  while (bytes > 0) {
    std::byte* start = data_pages_[page] + within;
    size_t piece = std::min<size_t>(bytes, kPageBytes - within);
    for (++page; piece < bytes && page < data_pages_.size() && data_pages_[page] == start + piece;
         ++page) {
      piece += std::min<size_t>(bytes - piece, kPageBytes);
    }
    use(start, piece);
    bytes -= piece;
    within = 0;
    if (page == data_pages_.size()) page = 0;
  }
}

void RingMemory::CopyOut(uint32_t offset, std::span<std::byte> to) const {
  ForEachPiece(offset, to.size(), [&to](const std::byte* start, size_t bytes) {
    CopyFromGuest(to.data(), start, bytes);
    to = to.subspan(bytes);
  });
}

void RingMemory::CopyIn(uint32_t offset, std::span<const std::byte> from) {
  ForEachPiece(offset, from.size(), [&from](std::byte* start, size_t bytes) {
    CopyToGuest(start, from.data(), bytes);
    from = from.subspan(bytes);
  });
}

size_t RingMemory::Pieces(uint32_t offset, size_t bytes, std::span<iovec> pieces) const {
  size_t count = 0;
  ForEachPiece(offset, bytes, [&](std::byte* start, size_t piece_bytes) {
    if (count == pieces.size()) std::abort();
    pieces[count++] = {start, piece_bytes};
  });
  return count;
}

}  // namespace vmbfs::hyperv
