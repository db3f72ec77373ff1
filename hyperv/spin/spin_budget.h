// How much of a core a thread may spend on looking in vain.

#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Counts the time spent, in buckets that pass by with the clock. There is one more
// of them than a second has, so that those counted cover any second, wherever it
// begins; over any second, then, at most `percent` of it is spent.
//
// A caller learns that the budget is used up only when it has spent a little more:
// kMargin is kept back for that, the longest look in vain that the bound holds for.
//
// Thread safety: one thread.
// REQUIRES: times come from one clock that never goes back.
class SpinBudget {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::nanoseconds;

  static constexpr std::chrono::seconds kPeriod{1};
  static constexpr size_t kBucketsPerPeriod = 20;
  static constexpr Duration kBucket = Duration(kPeriod) / kBucketsPerPeriod;
  static constexpr std::chrono::microseconds kMargin{100};

  // REQUIRES: percent <= 100. With 100 there is no bound.
  explicit SpinBudget(unsigned percent);

  // `spent` ended at `now`.
  void Spend(Time now, Duration spent);

  // Whether nothing more may be spent at `now`.
  bool UsedUp(Time now);

 private:
  // Forgets buckets that ended more than a period ago.
  void Advance(Time now);

  const bool bounded_;
  const Duration spent_max_;
  std::array<Duration, kBucketsPerPeriod + 1> buckets_{};
  int64_t newest_ = 0;  // counted from the clock's zero
  Duration spent_{0};   // the sum of all buckets
};

}  // namespace vmbfs::hyperv
