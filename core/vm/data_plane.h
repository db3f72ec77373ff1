// The threads that serve guests.

#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <memory>
#include <vector>

namespace vmbfs {

// A few threads, each running one io_context. A VM lives on one of them, which
// is thereby its strand: what is posted to it runs one at a time, in order.
//
// Thread safety: TakeSeat and thread_count from any thread; Stop and the
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

   private:
    friend class DataPlane;
    explicit Seat(Thread& thread);
    Thread* thread_;
  };

  // Starts `threads` threads; 0 for the default.
  explicit DataPlane(unsigned threads);
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

 private:
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace vmbfs
