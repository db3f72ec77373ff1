// The channels that the guest of one connection has opened, at either level of
// the link: rings, doorbells, the device's turns, faults.
//
// Trust: ring page frames are the guest's and are looked up in guest memory;
// doorbells come through eventfds that the VMM writes.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/guest_wire.h"
#include "hyperv/link/link_exchange.h"

namespace vmbfs::hyperv {

// A device of the link's, and what administrators are told of it. It outlives
// connections.
struct LinkDevice {
  std::shared_ptr<ChannelDevice> device;
  bool open_allowed = true;
  std::string fault;  // why the last service ended; empty: it did not
  uint64_t faults = 0;
  uint64_t doorbells = 0;
  uint64_t signals = 0;
};

// Runs opened channels.
//
// Thread safety: the exchange's executor, which runs one thing at a time.
// Ownership: refers to exchange and memory, which must live until CloseAll.
// Bounds: one opened channel an offer; one device turn at a time, others on
// the executor in between. A fault's reason is at most kReasonBytesMax.
// Waiting: where the thread has a spinner, a channel with work is awake there, and has
// its turns there; else it asks for signals at the end of each turn that leaves nothing.
// Errors: a channel's own end in its fault or in OnOpenDone, never further.
class LinkChannels : public std::enable_shared_from_this<LinkChannels> {
 public:
  static constexpr size_t kReasonBytesMax = 512;
  // Guests that ignore interrupts until they processed OpenResult get one
  // more signal (shared/specs/vmbus.md section 3.3).
  static constexpr std::chrono::milliseconds kSignalAfterOpen{100};
  // A channel without room whose guest makes room without a signal is looked at so
  // often (section 4.3).
  static constexpr std::chrono::milliseconds kBlockedPollInterval{10};

  // The answer to Open. It may not call back at once.
  using OnOpenDone = std::function<void(OfferId offer, const absl::Status& result)>;

  // Faults and refused opens go to `exchange` as well, for administrators.
  LinkChannels(LinkExchange& exchange, const GuestMemory& memory, OnOpenDone on_open_done);
  ~LinkChannels();

  // Which device serves an offer. After RemoveDevice it is closed and not
  // called again, whatever the guest does.
  void AddDevice(OfferId offer, std::shared_ptr<LinkDevice> device);
  void RemoveDevice(OfferId offer);

  // nullopt: not there, or removed.
  std::optional<OfferId> OfferOf(const ChannelDevice& device) const;

  // Opens the offer's device on these rings; OnOpenDone has the answer, at once
  // or later. `wire` is let go of in the end.
  void Open(OfferId offer, std::span<const uint64_t> incoming_page_frames,
            std::span<const uint64_t> outgoing_page_frames, std::shared_ptr<GuestWire> wire);
  // On return the device, the rings and the wire are let go of. An open that is
  // under way is answered first.
  void Close(OfferId offer);

  // While not running (before START, during PAUSE) no device has a turn, no
  // ring is touched and no guest signalled. Afterwards everything open is
  // looked after and signalled once.
  void SetRunning(bool running);

  // The guest signalled a channel in a way that met no doorbell.
  void Signalled(OfferId offer);

  // Ends service on the channels that `uses` names, e.g. since their memory
  // goes; opens under way fail.
  void FaultIf(const std::function<bool(OfferId)>& uses, const absl::Status& reason);

  // Closes all devices without another word; nothing is called afterwards.
  void CloseAll();

  // The device holds the channel / the guest has it open or is opening it.
  bool IsServed(OfferId offer) const;
  bool IsOpen(OfferId offer) const { return opened_.contains(offer); }

 private:
  struct Opened;
  using OpenedPtr = std::shared_ptr<Opened>;

  absl::Status MapRings(Opened& opened) const;
  void Advance(const OpenedPtr& opened);
  absl::Status BeginOpen(const OpenedPtr& opened);
  void Connected(const OpenedPtr& opened, absl::StatusOr<UniqueFd> doorbell);
  void FinishOpen(const OpenedPtr& opened);
  absl::Status StartDevice(const OpenedPtr& opened);
  void FailOpen(const OpenedPtr& opened, const absl::Status& reason);
  void LetGo(Opened& opened);
  void StopService(Opened& opened);
  void Fault(const OpenedPtr& opened, const absl::Status& reason);
  // Looks after a channel for which something came; the same in a turn of its own.
  void LookAfter(const OpenedPtr& opened);
  void ScheduleTurn(const OpenedPtr& opened);
  // One turn of the device, and what is left; nullopt when it has no turns now.
  std::optional<ChannelTurn> Turn(const OpenedPtr& opened);
  // Asks the guest for signals.
  void Sleep(const OpenedPtr& opened);
  void LookAgainLater(const OpenedPtr& opened);
  // Whether service goes on after the device touched guest memory under `watch`.
  bool GoesOn(const OpenedPtr& opened, const VanishedMemoryWatch& watch,
              const absl::Status& result);
  void LeaveSpinner(Opened& opened);
  void SignalGuest(const Opened& opened);
  void SignalLater(const OpenedPtr& opened);

  LinkExchange& exchange_;
  const GuestMemory& memory_;
  const OnOpenDone on_open_done_;
  bool running_ = false;
  std::map<OfferId, std::shared_ptr<LinkDevice>> devices_;
  std::map<const ChannelDevice*, OfferId> offers_;  // of devices_
  std::map<OfferId, OpenedPtr> opened_;
};

}  // namespace vmbfs::hyperv
