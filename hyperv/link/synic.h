// The host's side of the guest's synthetic interrupt controllers: message slots
// and event flags, written straight into guest memory (DIRECT delivery).
//
// Trust: register values come from the VMM, what the pages hold is the guest's.
// Addresses are resolved through GuestMemory when registers or memory change,
// and words are accessed atomically. Rules: shared/specs/vmbus.md 1.1 to 1.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

struct SynicRegisters {
  uint64_t scontrol = 0;
  uint64_t siefp = 0;
  uint64_t simp = 0;
  uint64_t sint2 = 0;
};

// Does no I/O but writes to irq eventfds.
//
// Thread safety: one strand.
// Ownership: refers to `memory`, which must outlive it.
// Bounds: kMessagesMax waiting messages, kept to by the caller; kIdleSintsMax
// interrupt sources that nobody uses keep their descriptors; kWaitersMax wait
// for a source that the VMM has not handed over.
class Synic {
 public:
  static constexpr size_t kMessagesMax = 16384;
  static constexpr size_t kIdleSintsMax = 64;
  // Two for each channel. Who waits is not taken back when its channel goes.
  static constexpr size_t kWaitersMax = 4096;

  // Asks the VMM for an interrupt source's eventfds; SintReady or SintRefused
  // is the answer, later.
  using RequestSint = std::function<void(uint32_t vp, uint8_t sint)>;
  // Called once: the interrupt source can be raised, or why it cannot.
  using OnReady = std::function<void(const absl::Status&)>;

  Synic(const GuestMemory& memory, uint32_t vp_count, RequestSint request_sint);

  uint32_t vp_count() const { return vp_count_; }

  // While not running (before START, during PAUSE) guest memory and eventfds
  // are left alone: messages wait, event flags are lost.
  void SetRunning(bool running);

  // REQUIRES: vp < vp_count().
  void SetRegisters(uint32_t vp, const SynicRegisters& registers);

  // Regions came or went: addresses are looked up again.
  void MemoryChanged();

  // Posts a VMBus message, in order per processor and interrupt source. It
  // waits while the slot is full, the SynIC disabled, or the eventfd unknown.
  // REQUIRES: vp < vp_count(), sint < kLinkSints, at most
  // kSynicPayloadBytesMax bytes, queued_messages() < kMessagesMax.
  void PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message);

  // The guest may have emptied its slot. Unknown sources are ignored.
  void EndOfMessage(uint32_t vp, uint8_t sint);

  void DropMessages();
  size_t queued_messages() const { return queued_messages_; }
  uint64_t dropped_messages() const { return dropped_messages_; }

  // Keeps VMBus' interrupt source of `vp` at hand for SignalEvent, from
  // on_ready's OK until Release. With too many waiting, on_ready gets
  // kResourceExhausted at once.
  // REQUIRES: vp < vp_count().
  void Acquire(uint32_t vp, OnReady on_ready);
  void Release(uint32_t vp);

  // Sets an event flag, and raises the interrupt if it was clear.
  // REQUIRES: the source is acquired, flag < kSynicEventFlags.
  void SignalEvent(uint32_t vp, uint16_t flag);

  // `ack` is whatever keeps the acknowledge eventfd alive and calls
  // EndOfMessage; it goes when the source does.
  void SintReady(uint32_t vp, uint8_t sint, UniqueFd irq, std::shared_ptr<void> ack);
  // Messages that waited for it are dropped, acquirers told.
  void SintRefused(uint32_t vp, uint8_t sint, const absl::Status& reason);

 private:
  struct Vp {
    SynicRegisters registers;
    GuestRun message_page;      // empty while SCONTROL or SIMP disables it, or it vanished
    GuestRun event_flags_page;  // the same for SIEFP
  };
  struct Sint {
    UniqueFd irq;  // empty until SintReady
    std::shared_ptr<void> ack;
    size_t users = 0;
    std::vector<OnReady> waiting;
    std::deque<std::vector<std::byte>> messages;
  };
  using SintKey = std::pair<uint32_t, uint8_t>;

  void Resolve(Vp& vp);
  bool Masked(const Vp& vp, uint8_t sint) const;
  Sint& FindOrRequest(const SintKey& key);
  void ForgetIdle();
  std::vector<OnReady> TakeWaiters(Sint& sint);
  void Deliver(const SintKey& key, Sint& sint);
  void DeliverAll();
  void DropMessagesOf(Sint& sint);

  const GuestMemory& memory_;
  const uint32_t vp_count_;
  const RequestSint request_sint_;
  bool running_ = false;
  std::map<uint32_t, Vp> vps_;  // those whose registers were set
  std::map<SintKey, Sint> sints_;
  size_t queued_messages_ = 0;
  size_t waiters_ = 0;  // of all sources
  uint64_t dropped_messages_ = 0;
};

}  // namespace vmbfs::hyperv
