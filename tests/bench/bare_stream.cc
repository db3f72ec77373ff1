#include "tests/bench/bare_stream.h"

#include <cstring>
#include <span>
#include <thread>

namespace vmbfs::bench {

bool BareStream::Pass(uint64_t blocks) {
  read_ = 0;
  taken_ = 0;
  std::thread host([this, blocks] { Produce(blocks); });
  for (uint64_t taken = 0; taken < blocks; ++taken) {
    while (read_.load(std::memory_order_acquire) == taken) Relax();
    std::memcpy(block_.data(), Slot(taken), block_bytes_);
    taken_.store(taken + 1, std::memory_order_release);
  }
  host.join();
  return !read_failed_;
}

void BareStream::Produce(uint64_t blocks) {
  (void)Pin(cores_.host);
  for (uint64_t read = 0; read < blocks; ++read) {
    while (read - taken_.load(std::memory_order_acquire) == slots_) Relax();
    if (!file_.ReadCached(read * block_bytes_, std::span(Slot(read), block_bytes_))) {
      read_failed_ = true;
    }
    read_.store(read + 1, std::memory_order_release);
  }
}

}  // namespace vmbfs::bench
