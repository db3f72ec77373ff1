#include "core/backing/memory_file.h"

#include <algorithm>

#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs {

absl::StatusOr<size_t> MemoryFile::ReadNow(uint64_t offset, std::span<const iovec> pieces) const {
  std::span<const std::byte> rest = std::span(bytes_).subspan(offset);
  size_t copied = 0;
  for (const iovec& piece : pieces) {
    const size_t count = std::min(piece.iov_len, rest.size());
    hyperv::CopyToGuest(static_cast<std::byte*>(piece.iov_base), rest.data(), count);
    rest = rest.subspan(count);
    copied += count;
  }
  return copied;
}

absl::StatusOr<size_t> MemoryFile::ReadBlocking(uint64_t offset, std::span<std::byte> out) const {
  const std::span<const std::byte> rest = std::span(bytes_).subspan(offset);
  const size_t count = std::min(out.size(), rest.size());
  std::copy_n(rest.begin(), count, out.begin());
  return count;
}

}  // namespace vmbfs
