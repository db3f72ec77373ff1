// What the machine itself can do: the least that each path would cost if there
// were no VMBus and no vmbfs. tests/bench/README.md says why each is fair.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "tests/bench/cached_file.h"
#include "tests/bench/measure.h"

namespace vmbfs::bench {

// A second thread on the host's core that answers each word in shared memory;
// with a file it reads the block first, into memory that both share.
//
// Thread safety: the guest's thread. The thread spins while Begin to End.
class BareExchange {
 public:
  // `file` may be null: a bare ping-pong. It outlives the exchange.
  BareExchange(const CachedFile* file, size_t block_bytes, Cores cores);
  ~BareExchange();

  void Begin();  // the answering thread awakes
  void End();    // it sleeps
  // One exchange; with a file, `out` has the block at `offset`.
  // REQUIRES: between Begin and End; out has room for the block.
  bool Exchange(uint64_t offset, std::byte* out);

 private:
  void Serve();

  const CachedFile* file_;
  const size_t block_bytes_;
  const Cores cores_;
  std::vector<std::byte> shared_;
  uint64_t offset_ = 0;       // published by request_
  bool read_failed_ = false;  // published by answer_
  alignas(64) std::atomic<uint64_t> request_{0};
  alignas(64) std::atomic<uint64_t> answer_{0};
  alignas(64) std::atomic<int> phase_{0};  // 0 asleep, 1 awake, 2 end
  std::thread thread_;
};

// A second thread on the host's core that sleeps in epoll_wait on an eventfd,
// reads it, and writes another, on which the caller does the same.
class EventPingPong {
 public:
  static absl::StatusOr<std::unique_ptr<EventPingPong>> Start(Cores cores);
  ~EventPingPong();

  // There and back. Errors: the system's.
  absl::Status Exchange();

 private:
  struct Side {
    hyperv::UniqueFd event;
    hyperv::UniqueFd epoll;
  };
  static absl::StatusOr<Side> MakeSide();
  static bool Await(const Side& side);
  static bool Ring(const Side& side);
  EventPingPong(Side there, Side back, Cores cores);

  Side there_;
  Side back_;
  std::atomic<bool> end_{false};
  std::thread thread_;
};

}  // namespace vmbfs::bench
