// A thread's way to wait: looking at the rings of awake channels for a while, then
// sleeping.
//
// A sleeping thread is woken by the guest's doorbell, which takes some 20 us on a
// virtual machine, and the guest pays for ringing. While a channel is awake its
// interrupt mask stays set, so the guest rings nothing, and what it wrote is seen
// within a fraction of a microsecond.

#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "hyperv/channel/channel_device.h"
#include "hyperv/spin/spin_budget.h"
#include "hyperv/spin/spin_window.h"

namespace vmbfs::hyperv {

class Spinner;

// A channel that can be looked at. It leaves the spinner when it is destroyed.
//
// Thread safety: the spinner's thread.
class SpinningChannel {
 public:
  SpinningChannel() = default;
  SpinningChannel(const SpinningChannel&) = delete;
  SpinningChannel& operator=(const SpinningChannel&) = delete;

  virtual ~SpinningChannel();

  bool awake() const { return spinner_ != nullptr; }

 private:
  friend class Spinner;

  // One turn of the device. nullopt: service ended or is held up, and the channel has
  // left the spinner, or does not exist any more.
  virtual std::optional<ChannelTurn> TakeTurn() = 0;
  // It left the spinner. Asks the guest for signals; what arrived meanwhile is the
  // channel's own to come back for.
  virtual void Sleep() = 0;

  Spinner* spinner_ = nullptr;  // null: not in its list
  SpinningChannel* previous_ = nullptr;
  SpinningChannel* next_ = nullptr;
  SpinWindow window_;
  // When to give up; nullopt: the last turn found work.
  std::optional<std::chrono::steady_clock::time_point> deadline_;
};

struct SpinOptions {
  // After the last request; 0 turns spinning off.
  std::chrono::microseconds window{0};
  // Of a core, over any second, spent on looking in vain; 0 turns spinning off.
  unsigned percent_max = 20;

  bool on() const { return window.count() > 0 && percent_max > 0; }
};

// Of one thread, since it began.
struct SpinStatus {
  uint64_t spins = 0;        // an awake channel had no request
  uint64_t spins_found = 0;  // one came while it was looked for
  uint64_t spin_ns = 0;      // in which nothing was found
  uint64_t sleeps = 0;       // channels that asked for signals
  uint64_t window_ns = 0;    // of the last spin; 0: it was not worth one
};

// Runs a thread: its io_context, and the channels that are awake, in turn.
//
// A channel is awake from a turn that found requests until its window has passed
// without one (SpinWindow) or the thread's budget is used up (SpinBudget). Then it
// asks for signals, looks once more, and is out of mind. With no channel awake the
// thread blocks, and whatever wakes it comes through the io_context.
//
// Each channel has a turn a round. The io_context is polled (an epoll_wait, some 0.3
// us) after kRequestsPerPoll requests, or kPollInterval: often enough that nobody
// waits longer for an awake thread than it takes to wake a sleeping one, and seldom
// enough that requests do not feel it.
//
// Thread safety: the thread that Run is called on; status() from any.
// Bounds: time in vain, as SpinOptions says. Channels are as many as are open; nothing
// is allocated and no lock taken for them.
class Spinner {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Clock = Time (*)();

  static constexpr uint32_t kRequestsPerPoll = 16;
  static constexpr std::chrono::microseconds kPollInterval{25};
  static constexpr int kHandlersPerPoll = 64;

  explicit Spinner(const SpinOptions& options, Clock clock = &std::chrono::steady_clock::now);

  // Until the context is stopped. Channels may be awake then, and leave later.
  void Run(boost::asio::io_context& context);

  // The channel had a turn that found work, or has more: it is looked at from now on.
  // REQUIRES: spinning is on.
  void Add(SpinningChannel& channel);
  // It is not looked at any more, and not told. Does nothing when it is not awake.
  void Remove(SpinningChannel& channel);
  // A channel sleeps that was not awake.
  void CountSleep();

  const SpinOptions& options() const { return options_; }
  SpinStatus status() const;

 private:
  struct Counters {
    std::atomic<uint64_t> spins = 0;
    std::atomic<uint64_t> spins_found = 0;
    std::atomic<uint64_t> spin_ns = 0;
    std::atomic<uint64_t> sleeps = 0;
    std::atomic<uint64_t> window_ns = 0;
  };

  void Append(SpinningChannel& channel);
  void Unlink(SpinningChannel& channel);
  // Until none is awake.
  void Spin(boost::asio::io_context& context);
  // A turn for each; whether any found work.
  bool Round(boost::asio::io_context& context, Time now);
  // A turn for the first; whether it found work.
  bool TurnOfFirst(Time now);
  // Whether the channel, which found nothing, shall be looked at again.
  bool SpinsOn(SpinningChannel& channel, Time now);
  // Whether anything ran.
  bool PollContext(boost::asio::io_context& context);

  const SpinOptions options_;
  const Clock clock_;
  SpinBudget budget_;
  SpinningChannel* first_ = nullptr;
  SpinningChannel* last_ = nullptr;
  size_t awake_ = 0;
  uint32_t requests_since_poll_ = 0;
  bool stopped_ = false;
  Counters counters_;
};

}  // namespace vmbfs::hyperv
