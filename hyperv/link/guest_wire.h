// How signals travel between an opened channel and its guest. Each level of the
// link has its own: connection ids and event flags at the SynIC level, two
// eventfds at the channel level.

#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::hyperv {

// One channel's way to its guest and back, from the guest's open to its close.
//
// Thread safety: one strand.
// Ownership: the channel's; destroyed, it lets go of both ways.
class GuestWire {
 public:
  // The eventfd that becomes readable when the guest signals, or why the
  // channel cannot be opened.
  using OnConnected = std::function<void(absl::StatusOr<UniqueFd> doorbell)>;

  virtual ~GuestWire() = default;

  // Asks for both ways. Called once; `on_connected` is called once, at once or
  // later, unless the wire is destroyed before. It may let go of the wire.
  virtual void Connect(OnConnected on_connected) = 0;

  // Signals the guest, who may have said that it wants no signals: false.
  // REQUIRES: connected, and the link is running.
  virtual bool Interrupt() = 0;
};

}  // namespace vmbfs::hyperv
