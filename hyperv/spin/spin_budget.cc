#include "hyperv/spin/spin_budget.h"

#include <algorithm>
#include <utility>

namespace vmbfs::hyperv {

SpinBudget::SpinBudget(unsigned percent)
    : bounded_(percent < 100), spent_max_(Duration(kPeriod) * percent / 100 - kMargin) {}

void SpinBudget::Spend(Time now, Duration spent) {
  Advance(now);
  buckets_[static_cast<size_t>(newest_) % buckets_.size()] += spent;
  spent_ += spent;
}

bool SpinBudget::UsedUp(Time now) {
  if (!bounded_) return false;
  Advance(now);
  return spent_ >= spent_max_;
}

void SpinBudget::Advance(Time now) {
  const int64_t bucket = now.time_since_epoch() / kBucket;
  const auto count = static_cast<int64_t>(buckets_.size());
  for (newest_ = std::max(newest_, bucket - count); newest_ < bucket;) {
    ++newest_;
    spent_ -= std::exchange(buckets_[static_cast<size_t>(newest_) % buckets_.size()], Duration(0));
  }
}

}  // namespace vmbfs::hyperv
