// An opened channel: two rings and the way to signal the other side.

#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "hyperv/guest_memory/guest_memory.h"
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
  // is legal). `memory` is where pages lie that the guest names beside its rings:
  // a host's alone, and it outlives the channel.
  Channel(IncomingRing incoming, OutgoingRing outgoing, std::function<void()> signal_peer,
          const GuestMemory* memory = nullptr)
      : incoming_(std::move(incoming)),
        outgoing_(std::move(outgoing)),
        signal_peer_(std::move(signal_peer)),
        memory_(memory) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  IncomingRing& incoming() { return incoming_; }
  OutgoingRing& outgoing() { return outgoing_; }
  const IncomingRing& incoming() const { return incoming_; }
  const OutgoingRing& outgoing() const { return outgoing_; }

  // The VM's memory; null where the channel has none to give.
  const GuestMemory* memory() const { return memory_; }

  void SignalPeer() {
    ++signals_sent_;
    signal_peer_();
  }
  uint64_t signals_sent() const { return signals_sent_; }

 private:
  IncomingRing incoming_;
  OutgoingRing outgoing_;
  std::function<void()> signal_peer_;
  const GuestMemory* memory_;
  uint64_t signals_sent_ = 0;
};

}  // namespace vmbfs::hyperv
