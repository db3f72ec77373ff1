// A channel's signals at the channel level: two eventfds that came with OPEN.

#pragma once

#include <utility>

#include "hyperv/link/event_fd.h"
#include "hyperv/link/guest_wire.h"

namespace vmbfs::hyperv {

// Thread safety: the executor of its ChannelLevel.
class ChannelWire final : public GuestWire {
 public:
  // Both are eventfds; `guest_interrupt` is empty for a guest that wants none.
  ChannelWire(UniqueFd host_kick, UniqueFd guest_interrupt)
      : host_kick_(std::move(host_kick)), guest_interrupt_(std::move(guest_interrupt)) {}

  void Connect(OnConnected on_connected) override { on_connected(std::move(host_kick_)); }
  bool Interrupt() override {
    if (guest_interrupt_) NotifyEventFd(guest_interrupt_);
    return static_cast<bool>(guest_interrupt_);
  }

  // From now on the guest is interrupted by this one.
  void Move(UniqueFd guest_interrupt) { guest_interrupt_ = std::move(guest_interrupt); }

 private:
  UniqueFd host_kick_;
  UniqueFd guest_interrupt_;
};

}  // namespace vmbfs::hyperv
