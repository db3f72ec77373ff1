// How long to look for a channel's next request before sleeping.

#pragma once

#include <chrono>
#include <cstdint>

namespace vmbfs::hyperv {

// Learns from one channel whether looking pays, as KVM's halt polling does of a
// processor. A look in vain halves the window and one that finds doubles it, up to
// its largest. Below an eighth the channel is not looked at, but for a probe of the
// whole window after so many requests without one: 1, and after each probe in vain
// twice as many, up to kProbeIntervalMax.
//
// So a guest whose requests come a little further apart than the window, or once a
// second, costs a probe every kProbeIntervalMax requests; and one that takes up speed
// is looked at again that many requests later at most. Time is not asked: how long a
// guest took from one request to the next is not known of a channel that slept, since
// waking takes as long as the window itself.
//
// Thread safety: one thread.
class SpinWindow {
 public:
  using Duration = std::chrono::nanoseconds;

  static constexpr uint32_t kProbeIntervalMax = 256;

  // Requests were served and no more are there: for how long to look for the next
  // one; 0: not at all. `longest` is the same at each call.
  Duration Begin(Duration longest);

  // What came of it. Neither is called when the look was cut short.
  void Found();
  void InVain();

 private:
  // In eighths of the longest window: the largest to begin with.
  static constexpr uint32_t kEighthsMax = 8;
  uint32_t eighths_ = kEighthsMax;
  uint32_t probe_interval_ = 0;  // 0: no probe has failed since something was found
  uint32_t until_probe_ = 0;
};

}  // namespace vmbfs::hyperv
