#include "hyperv/spin/spin_window.h"

#include <algorithm>

namespace vmbfs::hyperv {

SpinWindow::Duration SpinWindow::Begin(Duration longest) {
  if (eighths_ > 0) return longest * eighths_ / kEighthsMax;
  if (until_probe_ > 0) {
    --until_probe_;
    return Duration(0);
  }
  return longest;
}

// After a probe: all of it, for less may find nothing.
void SpinWindow::Found() {
  eighths_ = eighths_ == 0 ? kEighthsMax : std::min(2 * eighths_, kEighthsMax);
  probe_interval_ = 0;
}

void SpinWindow::InVain() {
  eighths_ /= 2;
  if (eighths_ > 0) return;
  probe_interval_ = std::clamp(2 * probe_interval_, 1u, kProbeIntervalMax);
  until_probe_ = probe_interval_;
}

}  // namespace vmbfs::hyperv
