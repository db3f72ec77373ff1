// DIRECT delivery: message slots and event flags are written straight into
// guest memory, and interrupts raised through eventfds.
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
#include "hyperv/link/synic.h"

namespace vmbfs::hyperv {

// Does no I/O but writes to irq eventfds.
//
// Thread safety: one strand.
// Ownership: refers to `memory`, which must outlive it.
// Bounds: as Synic; kIdleSintsMax interrupt sources that nobody uses keep their
// descriptors.
class DirectSynic final : public Synic {
 public:
  static constexpr size_t kIdleSintsMax = 64;

  // Asks the VMM for an interrupt source's eventfds; SintReady or SintRefused
  // is the answer, later.
  using RequestSint = std::function<void(DirectSynic& asker, uint32_t vp, uint8_t sint)>;

  DirectSynic(const GuestMemory& memory, RequestSint request_sint);

  void SetRunning(bool running) override;
  void SetRegisters(uint32_t vp, const SynicRegisters& registers) override;
  void MemoryChanged() override;
  void PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void EndOfMessage(uint32_t vp, uint8_t sint) override;
  void Retry() override { DeliverAll(); }
  void DropMessages() override;
  void Acquire(uint32_t vp, uint16_t flag, OnReady on_ready) override;
  void Release(uint32_t vp, uint16_t flag) override;
  void SignalEvent(uint32_t vp, uint16_t flag) override;

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
  void Deliver(const SintKey& key, Sint& sint);
  void DeliverAll();
  void DropMessagesOf(Sint& sint);

  const GuestMemory& memory_;
  const RequestSint request_sint_;
  bool running_ = false;
  std::map<uint32_t, Vp> vps_;  // those whose registers were set
  std::map<SintKey, Sint> sints_;
};

}  // namespace vmbfs::hyperv
