#include "hyperv/spin/spinner.h"

#include <algorithm>
#include <utility>

namespace vmbfs::hyperv {
namespace {

// Only this thread writes.
void Add(std::atomic<uint64_t>& counter, uint64_t count) {
  counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
}

// Leaves the core to its other hardware thread for a moment.
void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

SpinningChannel::~SpinningChannel() {
  if (spinner_ != nullptr) spinner_->Remove(*this);
}

Spinner::Spinner(const SpinOptions& options, Clock clock)
    : options_(options), clock_(clock), budget_(options.percent_max) {}

void Spinner::Append(SpinningChannel& channel) {
  channel.previous_ = std::exchange(last_, &channel);
  (channel.previous_ == nullptr ? first_ : channel.previous_->next_) = &channel;
}

void Spinner::Unlink(SpinningChannel& channel) {
  (channel.previous_ == nullptr ? first_ : channel.previous_->next_) = channel.next_;
  (channel.next_ == nullptr ? last_ : channel.next_->previous_) = channel.previous_;
  channel.previous_ = nullptr;
  channel.next_ = nullptr;
}

void Spinner::Add(SpinningChannel& channel) {
  channel.deadline_.reset();
  if (channel.awake()) return;
  channel.spinner_ = this;
  Append(channel);
  ++awake_;
}

void Spinner::Remove(SpinningChannel& channel) {
  if (!channel.awake()) return;
  channel.spinner_ = nullptr;
  Unlink(channel);
  --awake_;
}

void Spinner::Run(boost::asio::io_context& context) {
  if (!options_.on()) {
    context.run();
    return;
  }
  for (stopped_ = false; !stopped_;) {
    if (awake_ == 0) {
      stopped_ = context.run_one() == 0;
    } else {
      Spin(context);
    }
  }
}

void Spinner::Spin(boost::asio::io_context& context) {
  Time now = clock_();
  Time polled = now;
  requests_since_poll_ = 0;
  while (awake_ > 0 && !stopped_) {
    bool found = Round(context, now);
    if (now - polled >= kPollInterval) {
      found = PollContext(context) || found;
      polled = now;
    }
    const Time began = std::exchange(now, clock_());
    if (found) continue;
    Relax();
    const std::chrono::nanoseconds spent = now - began;
    budget_.Spend(now, spent);
    hyperv::Add(counters_.spin_ns, static_cast<uint64_t>(spent.count()));
  }
}

bool Spinner::Round(boost::asio::io_context& context, Time now) {
  bool found = false;
  for (size_t turns = awake_; turns > 0 && awake_ > 0 && !stopped_; --turns) {
    found = TurnOfFirst(now) || found;
    if (requests_since_poll_ >= kRequestsPerPoll) found = PollContext(context) || found;
  }
  return found;
}

bool Spinner::TurnOfFirst(Time now) {
  SpinningChannel& channel = *first_;
  // To the end of the list first: its turn may take it, or others, out.
  Unlink(channel);
  Append(channel);
  const std::optional<ChannelTurn> turn = channel.TakeTurn();
  if (!turn.has_value()) return true;
  const bool more = turn->next == ChannelTurn::Next::kMore;
  const bool found = more || turn->requests > 0;
  if (found) {
    requests_since_poll_ += more ? kRequestsPerPoll : turn->requests;
    if (channel.deadline_.has_value()) {
      channel.window_.Found();
      hyperv::Add(counters_.spins_found, 1);
    }
    channel.deadline_.reset();
  }
  if (turn->next == ChannelTurn::Next::kWaiting) {
    Remove(channel);
  } else if (!found && !SpinsOn(channel, now)) {
    Remove(channel);
    CountSleep();
    channel.Sleep();
  }
  return found;
}

bool Spinner::SpinsOn(SpinningChannel& channel, Time now) {
  if (!channel.deadline_.has_value()) {
    const std::chrono::nanoseconds window = channel.window_.Begin(options_.window);
    counters_.window_ns.store(static_cast<uint64_t>(window.count()), std::memory_order_relaxed);
    if (window.count() == 0 || budget_.UsedUp(now)) return false;
    hyperv::Add(counters_.spins, 1);
    channel.deadline_ = now + window;
    return true;
  }
  if (budget_.UsedUp(now)) return false;
  if (now < *channel.deadline_) return true;
  channel.window_.InVain();
  return false;
}

bool Spinner::PollContext(boost::asio::io_context& context) {
  requests_since_poll_ = 0;
  int handlers = 0;
  while (handlers < kHandlersPerPoll && context.poll_one() > 0) ++handlers;
  stopped_ = context.stopped();
  return handlers > 0;
}

void Spinner::CountSleep() { hyperv::Add(counters_.sleeps, 1); }

SpinStatus Spinner::status() const {
  const auto load = [](const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  return {.spins = load(counters_.spins),
          .spins_found = load(counters_.spins_found),
          .spin_ns = load(counters_.spin_ns),
          .sleeps = load(counters_.sleeps),
          .window_ns = load(counters_.window_ns)};
}

}  // namespace vmbfs::hyperv
