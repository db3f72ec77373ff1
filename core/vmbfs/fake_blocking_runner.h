// A BlockingRunner whose jobs run when a test says so.

#pragma once

#include <deque>
#include <functional>
#include <utility>

#include "core/vmbfs/vmbfs_device.h"

namespace vmbfs {

// Thread safety: one thread.
class FakeBlockingRunner final : public BlockingRunner {
 public:
  void Run(std::function<void()> work, std::function<void()> done) override {
    jobs_.push_back({std::move(work), std::move(done)});
  }

  size_t job_count() const { return jobs_.size(); }

  // The two halves of the oldest job. REQUIRES: there is one.
  void DoWork() { jobs_.front().work(); }
  void DoDone() {
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    job.done();
  }

 private:
  struct Job {
    std::function<void()> work;
    std::function<void()> done;
  };
  std::deque<Job> jobs_;
};

}  // namespace vmbfs
