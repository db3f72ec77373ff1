#include "hyperv/link/monitor_poller.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/monitor_page_format.h"

namespace vmbfs::hyperv {

static_assert(kMonitorGroups * kMonitorsPerGroup == kMonitorIds);

MonitorPoller::MonitorPoller(LinkExchange& exchange, const GuestMemory& memory,
                             LinkChannels& channels)
    : exchange_(exchange), memory_(memory), channels_(channels), timer_(exchange.executor()) {}

void MonitorPoller::Watch(OfferId offer, const MonitorTrigger& trigger) {
  watched_[offer] = trigger.id;
  if (std::exchange(guest_page_gpa_, trigger.guest_page_gpa) != trigger.guest_page_gpa) Resolve();
}

void MonitorPoller::SetRunning(bool running) {
  running_ = running;
  Arm();
}

void MonitorPoller::MemoryChanged() {
  Resolve();
  Arm();
}

void MonitorPoller::Resolve() {
  page_ = {};
  if (guest_page_gpa_ == 0) return;
  absl::StatusOr<GuestRun> page = memory_.MapRange(guest_page_gpa_, sizeof(MonitorPage));
  if (page.ok()) {
    page_ = *std::move(page);
  } else if (!watched_.empty()) {
    exchange_.NoteError(absl::StrCat("monitor page: ", page.status().message()));
  }
}

bool MonitorPoller::AnyServed() const {
  return std::any_of(watched_.begin(), watched_.end(),
                     [this](const auto& entry) { return channels_.IsServed(entry.first); });
}

// A timer that is not wanted any more runs out, and nothing follows it.
void MonitorPoller::Arm() {
  if (armed_ || !running_ || page_.data == nullptr || !AnyServed()) return;
  armed_ = true;
  timer_.expires_after(kInterval);
  timer_.async_wait([look = exchange_.Guarded([this] {
    armed_ = false;
    ++exchange_.shared().monitor_polls;
    if (running_ && page_.data != nullptr) Look();
    Arm();
  })](const boost::system::error_code& error) {
    if (!error) look();
  });
}

void MonitorPoller::Look() {
  const VanishedMemoryWatch watch;
  for (const auto& [offer, id] : watched_) {
    if (!channels_.IsServed(offer)) continue;
    std::byte* const guest_word = page_.data + MonitorPendingOffset(id);
    const uint32_t bit = MonitorPendingBit(id);
    // The plain look first: it leaves the word in the guest's cache.
    if ((LoadGuestWord(guest_word, std::memory_order_relaxed) & bit) == 0) continue;
    // The guest writes its ring before the bit; the ring is read after this.
    FetchAndGuestWord(guest_word, ~bit, std::memory_order_seq_cst);
    ++exchange_.shared().monitor_signals;
    channels_.Signalled(offer);
  }
  if (const absl::Status status = memory_.CheckVanished(watch); !status.ok()) Lose(status);
}

// Its channels would wait for signals that nobody sees.
void MonitorPoller::Lose(const absl::Status& why) {
  page_ = {};
  const std::string reason = absl::StrCat("monitor page: ", why.message());
  exchange_.NoteError(reason);
  channels_.FaultIf([this](OfferId offer) { return watched_.contains(offer); },
                    absl::Status(why.code(), reason));
}

}  // namespace vmbfs::hyperv
