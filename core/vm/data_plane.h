// The threads that serve guests.

#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "hyperv/spin/spinner.h"

namespace vmbfs {

// A few threads, each running one io_context and the channels that are awake on it
// (hyperv/spin). A VM lives on one of them, which is thereby its strand: what is
// posted to it runs one at a time, in order.
//
// Thread safety: TakeSeat, status and thread_count from any thread; Stop and the
// destructor from one thread that is none of these.
class DataPlane {
  struct Thread;

 public:
  // Without a number given: one thread a core, and no more than this.
  static constexpr unsigned kDefaultThreadsMax = 8;
  static constexpr unsigned kThreadsMax = 256;

  // One VM's place on a thread; given back when destroyed.
  class Seat {
   public:
    Seat(Seat&& other) noexcept;
    Seat& operator=(Seat&&) = delete;
    ~Seat();

    boost::asio::io_context::executor_type executor() const;
    // What runs the thread; for as long as the DataPlane lives.
    hyperv::Spinner* spinner() const;

   private:
    friend class DataPlane;
    explicit Seat(Thread& thread);
    Thread* thread_;
  };

  // What became of one thread's waiting.
  struct ThreadStatus {
    hyperv::SpinStatus spin;
    uint64_t wakeups = 0;  // voluntary context switches: times it slept
  };

  // Starts `threads` threads; 0 for the default.
  explicit DataPlane(unsigned threads, const hyperv::SpinOptions& spin = {});
  // Stops. What was not run is destroyed with it, on the calling thread.
  ~DataPlane();
  DataPlane(const DataPlane&) = delete;
  DataPlane& operator=(const DataPlane&) = delete;

  // A place on the thread with the fewest.
  Seat TakeSeat();

  // Runs what has been posted so far, then ends the threads. Things may still
  // be posted; they are not run.
  void Stop();

  size_t thread_count() const { return threads_.size(); }
  // In the order of their names, vmbfs-data-0 first. Asks no thread.
  std::vector<ThreadStatus> status() const;

 private:
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace vmbfs
