// Looks for the bits by which a guest signals its monitored channels without a
// hypercall: nobody tells of them, so the page is read again and again.
//
// Trust: the page's address and bytes are the guest's. Only the pending bits of
// the channels watched are looked at, and cleared; the rest of the page may be
// anything. Format: monitor_page_format.h.

#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_exchange.h"

namespace vmbfs::hyperv {

// A timer runs only while there is something to look at: the link runs, a device
// serves a channel that is watched, and the page is in guest memory.
//
// Thread safety: the exchange's executor.
// Ownership: refers to its arguments, which must outlive it.
// Bounds: kMonitorIds channels, as many as the bus has ids for.
// Errors: a page that vanishes faults the channels watched.
class MonitorPoller {
 public:
  static constexpr std::chrono::milliseconds kInterval{1};

  MonitorPoller(LinkExchange& exchange, const GuestMemory& memory, LinkChannels& channels);

  // From the guest's open to its close.
  void Watch(OfferId offer, const MonitorTrigger& trigger);
  void Forget(OfferId offer) { watched_.erase(offer); }

  // A channel may be served from now on.
  void Served() { Arm(); }

  void SetRunning(bool running);
  // Regions came or went.
  void MemoryChanged();

 private:
  void Resolve();
  bool AnyServed() const;
  void Arm();
  void Look();
  void Lose(const absl::Status& why);

  LinkExchange& exchange_;
  const GuestMemory& memory_;
  LinkChannels& channels_;
  std::map<OfferId, uint8_t> watched_;  // and their monitor ids
  uint64_t guest_page_gpa_ = 0;         // of those watched
  GuestRun page_;                       // empty: not in guest memory, or vanished
  bool running_ = false;
  bool armed_ = false;
  boost::asio::steady_timer timer_;
};

}  // namespace vmbfs::hyperv
