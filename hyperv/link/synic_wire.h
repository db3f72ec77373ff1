// A channel's signals at the SynIC level: the guest's come through the eventfd
// of a connection id, ours go through an event flag.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "hyperv/link/guest_wire.h"
#include "hyperv/link/link_exchange.h"
#include "hyperv/link/synic.h"

namespace vmbfs::hyperv {

// Thread safety: the exchange's executor, which runs one thing at a time.
// Ownership: refers to the exchange and the SynIC, which outlive it.
class SynicWire final : public GuestWire, public std::enable_shared_from_this<SynicWire> {
 public:
  struct Numbers {
    uint32_t connection_id = 0;
    uint16_t event_flag = 0;
    uint32_t target_vp = 0;  // the guest's; kNoInterruptVp: never signal
  };

  SynicWire(LinkExchange& exchange, Synic& synic, uint32_t vp_count, const Numbers& numbers)
      : exchange_(exchange), synic_(synic), vp_count_(vp_count), numbers_(numbers) {}
  ~SynicWire() override;

  // CONN_SET first, then the event: a guest that is told of the open can signal.
  void Connect(OnConnected on_connected) override;
  bool Interrupt() override;

  // Moves the guest's interrupts; `done` is called when none can arrive on the
  // old processor any more, unless the wire is destroyed before.
  void Move(uint32_t target_vp, std::function<void(const absl::Status&)> done);

 private:
  void AcquireEvent();
  void Finish(const absl::Status& result);

  LinkExchange& exchange_;
  Synic& synic_;
  const uint32_t vp_count_;
  Numbers numbers_;
  OnConnected on_connected_;
  UniqueFd doorbell_;
  bool connection_set_ = false;  // CONN_SET was sent
  bool event_acquired_ = false;
};

}  // namespace vmbfs::hyperv
