// A limit of the machine: blocks of a file that cross from the host's core to the
// guest's through memory of a ring's size, without VMBus and vmbfs.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tests/bench/cached_file.h"
#include "tests/bench/measure.h"

namespace vmbfs::bench {

// Thread safety: the guest's thread; a second one, on the host's core, lives while
// Pass runs.
class BareStream {
 public:
  // `file` outlives it. REQUIRES: ring_bytes >= block_bytes.
  BareStream(const CachedFile& file, size_t block_bytes, size_t ring_bytes, Cores cores)
      : file_(file),
        block_bytes_(block_bytes),
        slots_(ring_bytes / block_bytes),
        cores_(cores),
        ring_(ring_bytes),
        block_(block_bytes) {}

  // The file's first `blocks` blocks, read into the ring while it has room, and copied
  // out of it. false: a block was not in the page cache.
  bool Pass(uint64_t blocks);

 private:
  std::byte* Slot(uint64_t block) { return &ring_[block % slots_ * block_bytes_]; }
  void Produce(uint64_t blocks);

  const CachedFile& file_;
  const size_t block_bytes_;
  const uint64_t slots_;
  const Cores cores_;
  std::vector<std::byte> ring_;
  std::vector<std::byte> block_;
  bool read_failed_ = false;  // published by read_
  alignas(64) std::atomic<uint64_t> read_{0};
  alignas(64) std::atomic<uint64_t> taken_{0};
};

}  // namespace vmbfs::bench
