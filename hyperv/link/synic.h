// The host's side of the guest's synthetic interrupt controllers: messages and
// event flags, delivered by us (DirectSynic) or by the VMM (MediatedSynic).
//
// Rules: shared/specs/vmbus.md 1.1 to 1.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

struct SynicRegisters {
  uint64_t scontrol = 0;
  uint64_t siefp = 0;
  uint64_t simp = 0;
  uint64_t sint2 = 0;
};

// Thread safety: one strand.
// Bounds: kMessagesMax waiting messages, kept to by the caller; kWaitersMax wait
// for what the VMM has not handed over.
class Synic {
 public:
  static constexpr size_t kMessagesMax = 16384;
  // Two for each channel. Who waits is not taken back when its channel goes.
  static constexpr size_t kWaitersMax = 4096;

  // Called once: the event can be signalled, or why it cannot.
  using OnReady = std::function<void(const absl::Status&)>;

  virtual ~Synic() = default;

  // While not running (before START, during PAUSE) guest memory and eventfds
  // are left alone and the VMM gets no message to deliver: messages wait, event
  // flags are lost. What events need is asked of the VMM all the same.
  virtual void SetRunning(bool running) = 0;

  // REQUIRES: vp exists.
  virtual void SetRegisters(uint32_t vp, const SynicRegisters& registers) = 0;

  // Regions came or went.
  virtual void MemoryChanged() = 0;

  // Posts a VMBus message, in order per processor and interrupt source. It
  // waits while the slot is full or the SynIC disabled.
  // REQUIRES: vp exists, sint < kLinkSints, at most kSynicPayloadBytesMax bytes,
  // queued_messages() < kMessagesMax.
  virtual void PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) = 0;

  // The guest may have emptied its slot. Unknown sources are ignored.
  virtual void EndOfMessage(uint32_t vp, uint8_t sint) = 0;

  // Looks at all full slots again: a guest may empty one without an EOM that is
  // seen here (Linux does, in a panic on another processor).
  virtual void Retry() = 0;

  virtual void DropMessages() = 0;
  size_t queued_messages() const { return queued_messages_; }
  uint64_t dropped_messages() const { return dropped_messages_; }

  // Keeps an event flag of VMBus' interrupt source at hand for SignalEvent,
  // from on_ready's OK until Release. With too many waiting, on_ready gets
  // kResourceExhausted at once.
  // REQUIRES: vp exists, flag < kSynicEventFlags.
  virtual void Acquire(uint32_t vp, uint16_t flag, OnReady on_ready) = 0;
  virtual void Release(uint32_t vp, uint16_t flag) = 0;

  // Sets an event flag, and raises the interrupt if it was clear.
  // REQUIRES: it is acquired.
  virtual void SignalEvent(uint32_t vp, uint16_t flag) = 0;

 protected:
  static absl::Status TooManyWaiters() {
    return absl::ResourceExhaustedError(
        absl::StrCat(kWaitersMax, " opens and moves wait for interrupts from the VMM"));
  }
  // Those of one source, who are to be called now.
  std::vector<OnReady> TakeWaiters(std::vector<OnReady>& waiting) {
    waiters_ -= waiting.size();
    return std::exchange(waiting, {});
  }

  size_t queued_messages_ = 0;
  size_t waiters_ = 0;  // of all sources
  uint64_t dropped_messages_ = 0;
};

}  // namespace vmbfs::hyperv
