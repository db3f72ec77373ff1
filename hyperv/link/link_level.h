// What the two levels of the link have in common for the session that drives
// one of them.

#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_server.h"

namespace vmbfs::hyperv {

// Offers a connection's devices to the guest in the way of its level, and runs
// the channels that the guest opens.
//
// Thread safety: one strand.
// Ownership: the session's; refers to its exchange and memory. Destroyed, it
// closes all devices; the exchange is closed before.
class LinkLevel {
 public:
  virtual ~LinkLevel() = default;

  // Which types belong to this level.
  virtual LinkTypeLevel types() const = 0;

  // A request of such a type. Returns a violation, or OK.
  virtual absl::Status HandleFrame(LinkFrame& frame) = 0;

  // Called after each frame, and when there is room for output again.
  virtual void Progress() = 0;

  // As LinkServer's. Errors: kResourceExhausted.
  virtual absl::Status AddDevice(std::shared_ptr<LinkDevice> device) = 0;
  virtual void RemoveDevice(const LinkDevice& device) = 0;
  virtual bool IsOpen(const LinkDevice& device) const = 0;

  // A region came. One is to go: channels that use it are faulted; MemoryChanged
  // follows.
  virtual void MemoryChanged() = 0;
  virtual void FaultUsersOf(uint32_t region) = 0;

  // While not running (before START, during PAUSE) no guest memory is written
  // and no descriptor rung.
  virtual void SetRunning(bool running) = 0;

  // The VM was reset. What is to be answered for that goes out in this turn, or
  // in the next ones that it asks the executor for.
  virtual void Reset() = 0;
  // That answer is out: what came behind the reset is the new guest's.
  virtual void ResetAnswered() = 0;

  // Fills in what belongs to the level.
  virtual void Describe(LinkStatus& status) const = 0;
};

}  // namespace vmbfs::hyperv
