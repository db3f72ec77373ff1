#include "core/vmbfs/rdma_transfer.h"

#include <algorithm>
#include <optional>

namespace vmbfs {

absl::StatusOr<RdmaTransfer> RdmaTransfer::Start(const RdmaRead& read,
                                                 const hyperv::GpaDirectTable& table,
                                                 const hyperv::GuestMemory& memory) {
  absl::StatusOr<hyperv::GpaDirectPart> buffer =
      table.FindWritable(read.handle, read.token_offset, read.requested_bytes);
  if (!buffer.ok()) return buffer.status();
  while (const std::optional<hyperv::PageRange> range = buffer->Next()) {
    if (absl::Status there = memory.CheckPages(range->page_frames); !there.ok()) return there;
  }
  return RdmaTransfer(read, table, memory);
}

absl::Status RdmaTransfer::FindSlice(size_t bytes_max, Slice& slice) const {
  slice.piece_count = slice.bytes = 0;
  const uint64_t wanted_bytes = std::min<uint64_t>(bytes_max, read_.byte_count - done_bytes_);
  absl::StatusOr<hyperv::GpaDirectPart> part =
      table_->FindWritable(read_.handle, read_.token_offset + done_bytes_, wanted_bytes);
  if (!part.ok()) return part.status();
  while (const std::optional<hyperv::PageRange> range = part->Next()) {
    const std::span<iovec> room = std::span(slice.pieces).subspan(slice.piece_count);
    // The first range has room: its bytes are of a slice.
    if (room.size() < range->page_frames.size()) break;
    const absl::StatusOr<size_t> count =
        memory_->Pieces(range->page_frames, range->byte_offset, range->byte_count, room);
    if (!count.ok()) return count.status();
    slice.piece_count += *count;
    slice.bytes += range->byte_count;
  }
  return absl::OkStatus();
}

}  // namespace vmbfs
