// The threads that calls are answered on: gRPC's own callback threads never
// wait for a disk or a VM.

#pragma once

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <functional>

namespace vmbfs::rpc {

// Thread safety: any thread; the destructor after everything that posts.
// Bounds: `jobs_max` jobs waiting or running that came by TryPost.
class Executor {
 public:
  Executor(unsigned threads, size_t jobs_max);
  ~Executor();  // runs what was posted, then ends
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs `job` on one of the threads; false, and nothing happens, when there
  // are too many.
  [[nodiscard]] bool TryPost(std::function<void()> job);

  // The same without a bound, for the next step of a call that has one of its
  // own: a stream is never ended by other calls' load.
  void Post(std::function<void()> job);

 private:
  const size_t jobs_max_;
  std::atomic<size_t> jobs_{0};
  boost::asio::thread_pool pool_;
};

}  // namespace vmbfs::rpc
