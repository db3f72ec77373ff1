// A VM's way to the threads that may wait.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <functional>
#include <memory>

#include "core/vmbfs/vmbfs_device.h"

namespace vmbfs {

// Runs work on a pool that all VMs share, and its end on one VM's strand.
//
// Thread safety: the VM's strand.
// Ownership: may be destroyed with work under way, whose end still comes.
// Bounds: kJobsMax jobs of one VM are on the pool at a time, so that no guest
// takes the pool away from the others. kWaitingMax more wait for their turn. An
// open channel has one job at most, so it takes a guest that opens and closes in
// a loop, over a disk that hangs, to go beyond: the job that waits longest then
// ends without its work.
class StrandBlockingRunner final : public BlockingRunner {
 public:
  static constexpr size_t kJobsMax = 2;
  static constexpr size_t kWaitingMax = 64;

  // REQUIRES: `pool` is joined before the strand's context is destroyed.
  StrandBlockingRunner(boost::asio::any_io_executor strand, boost::asio::thread_pool& pool);
  ~StrandBlockingRunner() override;

  void Run(std::function<void()> work, std::function<void()> done) override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace vmbfs
