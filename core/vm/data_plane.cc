#include "core/vm/data_plane.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <string>
#include <thread>
#include <utility>

namespace vmbfs {

struct DataPlane::Thread {
  Thread() : keep_running(context.get_executor()) {}

  // A hint of one thread spares the context's own locks where they are not needed.
  boost::asio::io_context context{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running;
  std::atomic<size_t> seats = 0;
  std::thread thread;
};

DataPlane::Seat::Seat(Thread& thread) : thread_(&thread) { ++thread_->seats; }

DataPlane::Seat::Seat(Seat&& other) noexcept : thread_(std::exchange(other.thread_, nullptr)) {}

DataPlane::Seat::~Seat() {
  if (thread_ != nullptr) --thread_->seats;
}

boost::asio::io_context::executor_type DataPlane::Seat::executor() const {
  return thread_->context.get_executor();
}

DataPlane::DataPlane(unsigned threads) {
  if (threads == 0) {
    threads = std::clamp(std::thread::hardware_concurrency(), 1u, kDefaultThreadsMax);
  }
  threads = std::min(threads, kThreadsMax);
  for (unsigned i = 0; i < threads; ++i) {
    Thread& added = *threads_.emplace_back(std::make_unique<Thread>());
    added.thread = std::thread([&added] { added.context.run(); });
    // 15 characters are what the kernel shows.
    pthread_setname_np(added.thread.native_handle(), ("vmbfs-data-" + std::to_string(i)).c_str());
  }
}

DataPlane::~DataPlane() { Stop(); }

DataPlane::Seat DataPlane::TakeSeat() {
  // Two callers at once may choose the same thread: the balance is only roughly kept.
  const auto least = std::min_element(
      threads_.begin(), threads_.end(),
      [](const auto& a, const auto& b) { return a->seats.load() < b->seats.load(); });
  return Seat(**least);
}

void DataPlane::Stop() {
  for (const auto& thread : threads_) {
    boost::asio::post(thread->context, [&context = thread->context] { context.stop(); });
  }
  for (const auto& thread : threads_) {
    if (thread->thread.joinable()) thread->thread.join();
  }
}

}  // namespace vmbfs
