#include "grpc/executor/executor.h"

#include <boost/asio/post.hpp>
#include <utility>

namespace vmbfs::rpc {

Executor::Executor(unsigned threads, size_t jobs_max) : jobs_max_(jobs_max), pool_(threads) {}

Executor::~Executor() { pool_.join(); }

bool Executor::TryPost(std::function<void()> job) {
  if (jobs_.fetch_add(1, std::memory_order_relaxed) >= jobs_max_) {
    jobs_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  Post([this, job = std::move(job)] {
    job();
    jobs_.fetch_sub(1, std::memory_order_relaxed);
  });
  return true;
}

void Executor::Post(std::function<void()> job) { boost::asio::post(pool_, std::move(job)); }

}  // namespace vmbfs::rpc
