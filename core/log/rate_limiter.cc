#include "core/log/rate_limiter.h"

#include <algorithm>
#include <utility>

namespace vmbfs::log {

RateLimiter::RateLimiter(std::chrono::steady_clock::duration interval, Clock clock)
    : interval_(interval), clock_(std::move(clock)) {}

std::optional<uint64_t> RateLimiter::Admit(std::string_view key) {
  const auto now = clock_();
  if (const auto found = entries_.find(key); found != entries_.end()) {
    Entry& entry = found->second;
    if (now - entry.spoke < interval_) {
      ++entry.held_back;
      return std::nullopt;
    }
    entry.spoke = now;
    return std::exchange(entry.held_back, 0);
  }
  if (entries_.size() >= kKeysMax) {
    entries_.erase(std::min_element(
        entries_.begin(), entries_.end(),
        [](const auto& a, const auto& b) { return a.second.spoke < b.second.spoke; }));
  }
  entries_.emplace(key, Entry{.spoke = now});
  return 0;
}

}  // namespace vmbfs::log
