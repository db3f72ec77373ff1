#include "core/vm/data_plane.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

namespace vmbfs {
namespace {

// 0 also for a thread that has not begun or has ended.
uint64_t VoluntarySwitches(pid_t thread) {
  std::ifstream status("/proc/self/task/" + std::to_string(thread) + "/status");
  std::string word;
  while (status >> word) {
    uint64_t switches = 0;
    if (word == "voluntary_ctxt_switches:" && status >> switches) return switches;
  }
  return 0;
}

}  // namespace

struct DataPlane::Thread {
  explicit Thread(const hyperv::SpinOptions& spin)
      : spinner(spin), keep_running(context.get_executor()) {}

  void Run() {
    id = ::gettid();
    spinner.Run(context);
  }

  hyperv::Spinner spinner;  // what ends with the context may be awake there
  // A hint of one thread spares the context's own locks where they are not needed.
  boost::asio::io_context context{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> keep_running;
  std::atomic<size_t> seats = 0;
  std::atomic<pid_t> id = 0;  // 0: not begun
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

hyperv::Spinner* DataPlane::Seat::spinner() const { return &thread_->spinner; }

DataPlane::DataPlane(unsigned threads, const hyperv::SpinOptions& spin) {
  if (threads == 0) {
    threads = std::clamp(std::thread::hardware_concurrency(), 1u, kDefaultThreadsMax);
  }
  threads = std::min(threads, kThreadsMax);
  for (unsigned i = 0; i < threads; ++i) {
    Thread& added = *threads_.emplace_back(std::make_unique<Thread>(spin));
    added.thread = std::thread([&added] { added.Run(); });
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

std::vector<DataPlane::ThreadStatus> DataPlane::status() const {
  std::vector<ThreadStatus> all;
  for (const auto& thread : threads_) {
    all.push_back({.spin = thread->spinner.status(), .wakeups = VoluntarySwitches(thread->id)});
  }
  return all;
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
