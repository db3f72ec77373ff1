#include "hyperv/spin/spin_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <random>

namespace vmbfs::hyperv {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;
using Time = SpinBudget::Time;

constexpr unsigned kPercent = 20;
constexpr milliseconds kAllowed{200};

// All looks in vain of the last second, to the nanosecond.
class TrueSum {
 public:
  void Spend(Time end, nanoseconds spent) {
    looks_.push_back({end, spent});
    sum_ += spent;
    // What overlaps the second that ends now is counted with the part in it.
    while (looks_.front().end <= end - seconds{1}) {
      sum_ -= looks_.front().spent;
      looks_.pop_front();
    }
  }
  nanoseconds in_last_second() const {
    const Look& first = looks_.front();
    const nanoseconds outside = looks_.back().end - seconds{1} - (first.end - first.spent);
    return sum_ - std::max(outside, nanoseconds{0});
  }

 private:
  struct Look {
    Time end;
    nanoseconds spent;
  };
  std::deque<Look> looks_;
  nanoseconds sum_{0};
};

// Spends whenever it may, in looks of at most `look_max`, for some seconds; the
// thread does other things now and then. Returns what was spent in all.
nanoseconds SpendForSeconds(int count, microseconds look_max, microseconds pause_max,
                            uint32_t seed) {
  std::mt19937 random(seed);
  const auto some = [&random](microseconds most) {
    return nanoseconds(std::uniform_int_distribution<int64_t>(
        1, std::chrono::duration_cast<nanoseconds>(most).count())(random));
  };
  SpinBudget budget(kPercent);
  TrueSum truth;
  nanoseconds spent{0};
  const Time begin = Time() + seconds{1000} + some(milliseconds{999});
  for (Time now = begin; now < begin + seconds{count};) {
    if (budget.UsedUp(now) || random() % 64 == 0) {
      now += some(pause_max);
      continue;
    }
    const nanoseconds look = some(look_max);
    now += look;
    budget.Spend(now, look);
    truth.Spend(now, look);
    spent += look;
    if (truth.in_last_second() <= kAllowed) continue;
    ADD_FAILURE() << truth.in_last_second().count() << " ns in a second, looks up to "
                  << look_max.count() << " us";
    break;
  }
  return spent;
}

TEST(SpinBudget, OverNoSecondMoreIsSpentHoweverItIsSpread) {
  for (const microseconds look_max : {microseconds{7}, microseconds{100}}) {
    for (const microseconds pause_max :
         {microseconds{5}, microseconds{3000}, microseconds{90'000}}) {
      SpendForSeconds(2, look_max, pause_max, 1);
    }
  }
}

TEST(SpinBudget, MostOfItCanBeSpent) {
  EXPECT_GE(SpendForSeconds(10, microseconds{50}, microseconds{1000}, 1), 10 * kAllowed * 9 / 10);
}

TEST(SpinBudget, WhatWasSpentAtOnceIsBackAfterASecondAndABucket) {
  const Time begin = Time() + seconds{5} + milliseconds{49};
  SpinBudget budget(kPercent);
  EXPECT_FALSE(budget.UsedUp(begin));
  budget.Spend(begin, kAllowed);
  for (const int ms : {0, 1, 500, 999, 1000}) {
    EXPECT_TRUE(budget.UsedUp(begin + milliseconds{ms})) << ms;
  }
  EXPECT_FALSE(budget.UsedUp(begin + seconds{1} + SpinBudget::kBucket));
}

TEST(SpinBudget, AfterALongSleepAllIsBack) {
  SpinBudget budget(kPercent);
  Time now = Time() + seconds{5};
  for (int i = 0; i < 40; ++i, now += milliseconds{40}) budget.Spend(now, milliseconds{30});
  EXPECT_TRUE(budget.UsedUp(now));
  now += std::chrono::hours{24 * 365};
  EXPECT_FALSE(budget.UsedUp(now));
  budget.Spend(now, kAllowed - SpinBudget::kMargin - nanoseconds{1});
  EXPECT_FALSE(budget.UsedUp(now));
  budget.Spend(now, nanoseconds{1});
  EXPECT_TRUE(budget.UsedUp(now));
}

TEST(SpinBudget, HundredPercentIsNoBound) {
  SpinBudget budget(100);
  budget.Spend(Time() + seconds{5}, seconds{100});
  EXPECT_FALSE(budget.UsedUp(Time() + seconds{5}));
}

}  // namespace
}  // namespace vmbfs::hyperv
