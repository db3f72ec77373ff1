// At most one log line in a while for each cause.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace vmbfs::log {

using Clock = std::function<std::chrono::steady_clock::time_point()>;

// Thread safety: one thread, or one strand.
// Bounds: kKeysMax keys; beyond it the key that spoke longest ago is forgotten.
class RateLimiter {
 public:
  static constexpr size_t kKeysMax = 256;

  explicit RateLimiter(std::chrono::steady_clock::duration interval,
                       Clock clock = std::chrono::steady_clock::now);

  // Whether a line about `key` may be written now: the number of lines held back
  // since the last one, or nullopt to hold this one back too.
  std::optional<uint64_t> Admit(std::string_view key);

 private:
  struct Entry {
    std::chrono::steady_clock::time_point spoke;
    uint64_t held_back = 0;
  };

  const std::chrono::steady_clock::duration interval_;
  const Clock clock_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace vmbfs::log
