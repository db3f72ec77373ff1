// The channels that the guest of one connection has opened: rings, doorbells,
// the device's turns, faults.
//
// Trust: ring page frames are the guest's and are looked up in guest memory;
// doorbells come through eventfds of our own that the VMM writes.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/synic.h"

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
// Thread safety: `executor`, which runs one thing at a time.
// Ownership: refers to port, memory and synic, which must live until CloseAll.
// Bounds: one opened channel an offer; one device turn at a time, others on
// the executor in between. A fault's reason is at most kReasonBytesMax.
// Errors: a channel's own end in its fault or in OpenDone, never further.
class LinkChannels : public std::enable_shared_from_this<LinkChannels> {
 public:
  static constexpr size_t kReasonBytesMax = 512;
  // Guests that ignore interrupts until they processed OpenResult get one
  // more signal (shared/specs/vmbus.md section 3.3).
  static constexpr std::chrono::milliseconds kSignalAfterOpen{100};

  // What opened channels ask of their connection. No call comes back at once.
  class Port {
   public:
    virtual ~Port() = default;
    // `done` is called once, later, unless the connection ends first.
    virtual void SetConnection(uint32_t connection_id, UniqueFd doorbell,
                               std::function<void(const absl::Status&)> done) = 0;
    virtual void ClearConnection(uint32_t connection_id) = 0;
    // Service on a device's channel ended by a fault.
    virtual void Faulted(const ChannelDevice& device, const absl::Status& reason) = 0;
    // The bus' answers.
    virtual void OpenDone(OfferId offer, const absl::Status& result) = 0;
    virtual void CloseDone(OfferId offer) = 0;
    virtual void ModifyDone(OfferId offer, const absl::Status& result) = 0;
  };

  LinkChannels(const boost::asio::any_io_executor& executor, Port& port, const GuestMemory& memory,
               Synic& synic);
  ~LinkChannels();

  // Which device serves an offer. After RemoveDevice it is closed and not
  // called again, whatever the guest does.
  void AddDevice(OfferId offer, std::shared_ptr<LinkDevice> device);
  void RemoveDevice(OfferId offer);

  // The bus' requests, see BusPort.
  void Open(const OpenRequest& request);
  void Close(OfferId offer);
  void Modify(OfferId offer, uint32_t target_vp);

  // While not running (before START, during PAUSE) no device has a turn, no
  // ring is touched and no guest signalled. Afterwards everything open is
  // looked after and signalled once.
  void SetRunning(bool running);

  // The guest signalled a channel in a way that met no doorbell.
  void Signalled(uint32_t connection_id);

  // Ends service on the channels that `uses` names, e.g. since their memory
  // goes; opens under way fail.
  void FaultIf(const std::function<bool(OfferId)>& uses, const absl::Status& reason);

  // Closes all devices without telling the bus; nothing is called afterwards.
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
  void ConnectionSet(const OpenedPtr& opened, const absl::Status& result);
  void FinishOpen(const OpenedPtr& opened);
  absl::Status StartDevice(const OpenedPtr& opened);
  void FailOpen(const OpenedPtr& opened, const absl::Status& reason);
  void LetGo(Opened& opened);
  void StopService(Opened& opened);
  void Fault(const OpenedPtr& opened, const absl::Status& reason);
  void ScheduleTurn(const OpenedPtr& opened);
  void Turn(const OpenedPtr& opened);
  void SignalGuest(const Opened& opened);
  void SignalLater(const OpenedPtr& opened);

  boost::asio::any_io_executor executor_;
  Port& port_;
  const GuestMemory& memory_;
  Synic& synic_;
  bool running_ = false;
  std::map<OfferId, std::shared_ptr<LinkDevice>> devices_;
  std::map<OfferId, OpenedPtr> opened_;
};

}  // namespace vmbfs::hyperv
