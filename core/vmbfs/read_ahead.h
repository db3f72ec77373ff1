// How far to read ahead in a file that a guest reads in sequence. No I/O.
//
// Trust: offsets are the guest's, checked against the file's size.

#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backing/backing.h"

namespace vmbfs {

// What is in the page cache needs none: only a read that had to wait widens the
// window, from kBytesMin to kBytesMax, and one out of sequence closes it. A read
// of a file's first bytes counts as the start of a sequence.
//
// Thread safety: one strand.
class ReadAhead {
 public:
  static constexpr uint64_t kBytesMin = 128 << 10;
  static constexpr uint64_t kBytesMax = 2 << 20;

  // The guest reads `bytes` at `offset`; `file` is compared, never used.
  void OnRead(const File* file, uint64_t offset, uint64_t bytes) {
    const bool in_sequence = offset == 0 || (file == file_ && offset == next_offset_);
    if (!in_sequence || file != file_) window_bytes_ = 0;
    in_sequence_ = in_sequence;
    file_ = file;
    next_offset_ = offset + bytes;
  }

  // That read has to wait for the disk: the bytes from its start on that are worth
  // asking for. 0: no more than its own.
  uint64_t OnMiss() {
    if (!in_sequence_) return 0;
    window_bytes_ = std::clamp(2 * window_bytes_, kBytesMin, kBytesMax);
    return window_bytes_;
  }

 private:
  const File* file_ = nullptr;
  uint64_t next_offset_ = 0;
  uint64_t window_bytes_ = 0;
  bool in_sequence_ = false;
};

}  // namespace vmbfs
