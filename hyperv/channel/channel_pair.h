// Both ends of a channel in one process, for tests.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "hyperv/channel/channel.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {

struct ChannelPairOptions {
  size_t data_pages = 4;  // of each ring; the firmware's number
  PageLayout layout = PageLayout::kContiguous;
  const GuestMemory* memory = nullptr;  // of the host's end
  InterruptMasking guest_masking = InterruptMasking::kWhileBusy;
  // Called with each signal, on the thread of the side that signals.
  std::function<void()> on_host_signalled = nullptr;
  std::function<void()> on_guest_signalled = nullptr;
};

// Thread safety: the ends may be used on different threads.
// Ownership: must outlive the channels and memories it gave out.
class ChannelPair {
 public:
  explicit ChannelPair(ChannelPairOptions options = {});

  // An end of the channel, from where its rings' control pages stand. May be
  // called again when the former one is gone, as after a restart.
  absl::StatusOr<std::unique_ptr<Channel>> OpenHost();
  absl::StatusOr<std::unique_ptr<Channel>> OpenGuest();

  // The rings themselves, for tests that look at them or break them.
  RingMemory GuestToHost() const { return guest_to_host_.Map(); }
  RingMemory HostToGuest() const { return host_to_guest_.Map(); }
  bool OutsideIsUntouched() const {
    return guest_to_host_.OutsideIsUntouched() && host_to_guest_.OutsideIsUntouched();
  }

  uint64_t signals_to_host() const { return signals_to_host_; }
  uint64_t signals_to_guest() const { return signals_to_guest_; }

 private:
  ChannelPairOptions options_;
  PrivateRingPages guest_to_host_;
  PrivateRingPages host_to_guest_;
  std::atomic<uint64_t> signals_to_host_ = 0;
  std::atomic<uint64_t> signals_to_guest_ = 0;
};

}  // namespace vmbfs::hyperv
