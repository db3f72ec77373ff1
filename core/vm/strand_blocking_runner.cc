#include "core/vm/strand_blocking_runner.h"

#include <boost/asio/post.hpp>
#include <deque>
#include <utility>

namespace vmbfs {
namespace {

struct Job {
  std::function<void()> work;
  std::function<void()> done;
};

}  // namespace

struct StrandBlockingRunner::State : std::enable_shared_from_this<State> {
  State(boost::asio::any_io_executor strand_in, boost::asio::thread_pool& pool_in)
      : strand(std::move(strand_in)), pool(pool_in) {}

  // The job and a share of the state travel to the pool and back as one owner:
  // neither is ever let go of on the pool's thread.
  void Start(Job job) {
    ++running;
    boost::asio::post(pool, [self = shared_from_this(), job = std::move(job)]() mutable {
      job.work();
      const boost::asio::any_io_executor back = self->strand;
      boost::asio::post(back, [self = std::move(self), job = std::move(job)]() mutable {
        self->End(std::move(job));
      });
    });
  }

  void End(Job job) {
    --running;
    if (!waiting.empty()) {
      Job next = std::move(waiting.front());
      waiting.pop_front();
      Start(std::move(next));
    }
    job.done();
  }

  const boost::asio::any_io_executor strand;
  boost::asio::thread_pool& pool;
  size_t running = 0;
  std::deque<Job> waiting;
};

StrandBlockingRunner::StrandBlockingRunner(boost::asio::any_io_executor strand,
                                           boost::asio::thread_pool& pool)
    : state_(std::make_shared<State>(std::move(strand), pool)) {}

StrandBlockingRunner::~StrandBlockingRunner() = default;

void StrandBlockingRunner::Run(std::function<void()> work, std::function<void()> done) {
  Job job{std::move(work), std::move(done)};
  if (state_->running < kJobsMax) {
    state_->Start(std::move(job));
  } else {
    if (state_->waiting.size() == kWaitingMax) {
      boost::asio::post(state_->strand, std::move(state_->waiting.front().done));
      state_->waiting.pop_front();
    }
    state_->waiting.push_back(std::move(job));
  }
}

}  // namespace vmbfs
