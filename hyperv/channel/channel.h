// An opened channel: two rings and the way to signal the other side.

#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"

namespace vmbfs::hyperv {

// Both sides use it: a host reads the guest->host ring and writes the
// host->guest ring, a guest the other way round.
//
// Thread safety: one strand (a VM's on the host, the guest's own thread).
// Ownership: the rings keep the guest's pages mapped; destroy the Channel to
// let go of them.
class Channel {
 public:
  // `signal_peer` sets the peer's event flag or rings its eventfd. It must not
  // block and may be called when the peer needs no signal (a spurious signal
  // is legal).
  Channel(IncomingRing incoming, OutgoingRing outgoing, std::function<void()> signal_peer)
      : incoming_(std::move(incoming)),
        outgoing_(std::move(outgoing)),
        signal_peer_(std::move(signal_peer)) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  IncomingRing& incoming() { return incoming_; }
  OutgoingRing& outgoing() { return outgoing_; }
  const IncomingRing& incoming() const { return incoming_; }
  const OutgoingRing& outgoing() const { return outgoing_; }

  void SignalPeer() {
    ++signals_sent_;
    signal_peer_();
  }
  uint64_t signals_sent() const { return signals_sent_; }

 private:
  IncomingRing incoming_;
  OutgoingRing outgoing_;
  std::function<void()> signal_peer_;
  uint64_t signals_sent_ = 0;
};

}  // namespace vmbfs::hyperv
