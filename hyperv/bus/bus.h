// The VMBus server of one VM: negotiation, offers, GPADLs, open, close, revoke,
// unload, reset. It does no I/O: messages and answers go in by calls, what is
// to be sent or done comes out through BusPort.
//
// Trust: messages are the guest's. Rules: README.md, shared/specs/vmbus.md
// sections 2 and 3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

// A bit that the guest sets to signal a monitored channel, instead of or besides
// its event connection (shared/specs/vmbus.md 1.7).
struct MonitorTrigger {
  // The child-to-parent page: page-aligned, otherwise as the guest named it. All
  // channels in use at one time have the same.
  uint64_t guest_page_gpa = 0;
  uint8_t id = 0;  // below kMonitorIds; no other channel in use has it
};

// What the runner needs to open a channel's rings and doorbells.
struct OpenRequest {
  OfferId offer{};
  uint32_t channel_id = 0;
  uint32_t connection_id = 0;                            // the guest signals us on it
  uint16_t event_flag = 0;                               // we signal the guest by it
  uint32_t target_vp = 0;                                // kNoInterruptVp: never signal
  std::optional<MonitorTrigger> monitor = std::nullopt;  // none: not monitored
  // Page frames of the guest->host ring, then of the host->guest ring. Both
  // have at least two pages. Valid during the call only.
  std::span<const uint64_t> incoming_page_frames;
  std::span<const uint64_t> outgoing_page_frames;
};

// What a Bus asks of its runner.
//
// A call may not call back into the Bus; answers come in a later call of the
// Bus (post them).
class BusPort {
 public:
  virtual ~BusPort() = default;

  // Posts a channel message to a processor's message slot, in order per
  // processor and SINT; the runner queues while the slot is busy.
  virtual void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) = 0;

  // Opens rings, doorbells and the device; answer with Bus::OpenDone.
  virtual void OpenChannel(const OpenRequest& request) = 0;

  // Closes the device, rings and doorbells; answer with Bus::CloseDone. An
  // open that is still under way is answered first.
  virtual void CloseChannel(OfferId offer) = 0;

  // Moves the channel's interrupts to another processor; answer with
  // Bus::ModifyDone when none can arrive on the old one any more.
  virtual void ModifyChannel(OfferId offer, uint32_t target_vp) = 0;

  // A device whose offer was revoked is no longer used by the guest in any way.
  virtual void OfferReleased(OfferId offer) = 0;

  // Queued messages to the guest are to be dropped (VM reset).
  virtual void DropQueuedMessages() = 0;
};

// Counters and state for inspect.
struct BusStatus {
  std::string state;    // "disconnected", "connected", "disconnecting"
  std::string version;  // "6.0", empty when disconnected
  uint32_t features = 0;
  uint32_t target_vp = 0;
  bool offers_requested = false;
  std::string client_id;  // empty: the guest gave none
  // Monitor pages that the guest named, 0: none. Only the second is looked into,
  // and only while a monitored channel is open.
  uint64_t parent_to_child_monitor_page_gpa = 0;
  uint64_t child_to_parent_monitor_page_gpa = 0;
  bool paused = false;       // the guest wants no messages for now
  size_t messages_held = 0;  // and this many wait for its Resume
  uint64_t messages_received = 0;
  uint64_t messages_dropped = 0;
  uint64_t messages_sent = 0;
  std::string last_drop_reason;
  size_t gpadl_count = 0;
  size_t gpadl_pages = 0;
};

struct BusChannelStatus {
  OfferId offer{};
  uint32_t channel_id = 0;  // 0 when the guest has none
  std::string state;        // "released", "closed", "opening", "open", ...
  uint32_t target_vp = 0;
  // Those in use while it is open, otherwise those it was offered with.
  uint32_t connection_id = 0;
  uint16_t event_flag = 0;
  std::optional<uint8_t> monitor_id;  // that it was offered with
  size_t gpadl_count = 0;
};

// Thread safety: one strand.
// Bounds: see README.md (GPADLs, pages, incomplete GPADLs, channels).
// Errors: guest mistakes are dropped or answered as the specification says, and
// counted; no guest message makes a call fail.
class Bus {
 public:
  explicit Bus(BusPort& port);
  ~Bus();
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  // Offers a channel: at once when the guest has asked for offers, otherwise
  // with its request.
  // Errors: kAlreadyExists  same interface, instance and sub-channel as a live
  //                         offer (a revoked one that the guest still holds
  //                         does not count: the offer waits for its release).
  //         kResourceExhausted  2,047 channels.
  absl::StatusOr<OfferId> Offer(const ChannelOffer& offer);

  // Takes an offer back: closes it if it is open, tells the guest, and in the
  // end calls BusPort::OfferReleased (at the guest's release, its disconnect,
  // or at once if it never saw the offer; CloseChannel comes before).
  // REQUIRES: a live offer of this bus; if it has sub-channels, all of them are
  // "revoked" or gone, because a guest must be told of them first.
  void Revoke(OfferId offer);

  // One message that the guest posted to message connection `connection`.
  // Messages to connections other than 1 and 4 are dropped.
  void HandleMessage(uint32_t connection, std::span<const std::byte> message);

  // Answers to BusPort. An answer nobody waits for is ignored.
  void OpenDone(OfferId offer, const absl::Status& result);
  void CloseDone(OfferId offer);
  void ModifyDone(OfferId offer, const absl::Status& result);

  // The VM was reset: everything of the guest's is dropped, offers stay.
  void Reset();

  // The guest's ring page frames of an offer that is opening, open or closing;
  // empty otherwise. For memory that goes away.
  std::span<const uint64_t> RingPageFrames(OfferId offer) const;

  BusStatus status() const;
  std::vector<BusChannelStatus> channels() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmbfs::hyperv
