#include "core/vm/pool_fd_closer.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <deque>

#include "core/mutex/mutex.h"

namespace vmbfs {

struct PoolFdCloser::State {
  explicit State(boost::asio::thread_pool& pool_in) : pool(pool_in) {}
  // Something waits only where the pool ended before it came to its job.
  ~State() {
    for (const int fd : waiting) ::close(fd);
  }

  // Closes until nothing waits. On the pool.
  void CloseAll() VMBFS_EXCLUDES(mutex) {
    while (true) {
      int fd = -1;
      {
        MutexLock lock(mutex);
        if (waiting.empty()) {
          running = false;
          return;
        }
        fd = waiting.front();
        waiting.pop_front();
      }
      ::close(fd);
    }
  }

  boost::asio::thread_pool& pool;
  Mutex mutex;
  std::deque<int> waiting VMBFS_GUARDED_BY(mutex);
  bool running VMBFS_GUARDED_BY(mutex) = false;  // a job is on the pool
};

PoolFdCloser::PoolFdCloser(boost::asio::thread_pool& pool)
    : state_(std::make_shared<State>(pool)) {}

PoolFdCloser::~PoolFdCloser() = default;

void PoolFdCloser::Close(int fd) {
  {
    MutexLock lock(state_->mutex);
    state_->waiting.push_back(fd);
    if (state_->running) return;
    state_->running = true;
  }
  boost::asio::post(state_->pool, [state = state_] { state->CloseAll(); });
}

bool PoolFdCloser::HasRoom() const {
  MutexLock lock(state_->mutex);
  return state_->waiting.size() < kWaitingMax;
}

}  // namespace vmbfs
