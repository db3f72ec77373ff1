// A guest in user space: its RAM, its virtual processor's SynIC, the VMM that
// forwards them over the link, and a VMBus driver. For tests, benchmarks and
// the tool vmbfs-guest.
//
// It follows shared/specs/vmbus.md sections 8 and 11 and vmm-link.md 1.3 and
// 1.4, and shares the wire formats with the server but none of its logic; only
// a VMM with a VMBus of its own (GuestLink::kChannel) uses the same Bus.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guid/guid.h"
#include "hyperv/pipe/message_pipe.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs::hyperv {

// Which known guest to behave like (shared/specs/vmbus.md 8.1 to 8.3).
enum class GuestProfile {
  kFirmware,  // connection 1, 6.0 then 3.0, padded GPADLs, 156-byte Open, 5+5 pages
  kLinux,     // connection 4 (>= 5.0), 6.0 down to 2.4, exact GPADLs, 17+17 pages
};

// How the guest signals the host that a ring has something for it.
enum class GuestSignal {
  kEvent,    // HvSignalEvent
  kMonitor,  // a bit in the monitor page, as a driver in Linux 6.1's user space does
};

struct GuestOptions {
  std::string socket_path;
  GuestLink link = GuestLink::kDirect;  // the form that the guest's VMM uses
  GuestProfile profile = GuestProfile::kFirmware;
  // kMonitor opens no channel that is not monitored.
  GuestSignal signal = GuestSignal::kEvent;
  uint64_t ram_bytes = 16 << 20;
  std::chrono::milliseconds timeout{30'000};  // for each waiting call
  // No waiting call goes on beyond it, whatever its own time-out.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
  std::string label = "vmbfs-guest";  // for HELLO
  // Asked for in this order; empty: the profile's own.
  std::vector<uint32_t> versions;
  uint32_t vp_count = 1;
  uint32_t message_vp = 0;  // where InitiateContact asks for host messages
};

struct GuestOffer {
  uint32_t channel_id = 0;
  uint32_t connection_id = 0;
  Guid interface_id;
  Guid instance_id;
  uint16_t flags = 0;
  uint32_t pipe_type = 0;
  std::optional<uint8_t> monitor_id = std::nullopt;  // of a monitored channel
};

// An open channel on the guest's side. Destroy it before its Guest; that
// closes nothing on the wire (Guest::Close does).
class GuestChannel {
 public:
  virtual ~GuestChannel() = default;
  virtual const GuestOffer& offer() const = 0;
  virtual MessagePipe& pipe() = 0;
  // The processor that took the host's last signal; nullopt before the first.
  virtual std::optional<uint32_t> last_signal_vp() const = 0;

  // Sleeps until the host may have something: returns on a signal, on any
  // other event, and on kDeadlineExceeded. Arm the pipe first.
  // Errors: kDeadlineExceeded, kUnavailable (the link is gone), kAborted (the
  //         offer was revoked).
  virtual absl::Status Wait() = 0;

  // Sends a set-up or tear-down of a buffer without a signal of its own
  // (MessagePipe::WriteDeferred). Errors: those of Wait and of the pipe.
  virtual absl::Status SendDeferred(PipeMessageType type, std::span<const std::byte> data) = 0;

  // Sends one message and waits for the next one from the host, into `buffer`.
  // Errors: those of Wait and of the pipe.
  virtual absl::StatusOr<std::span<std::byte>> Exchange(std::span<const std::byte> message,
                                                        std::span<std::byte> buffer) = 0;
};

// Thread safety: one thread at a time; calls block up to the time-out.
// Errors: kDeadlineExceeded  the server did not answer in time;
//         kUnavailable       no server, or the link broke;
//         kFailedPrecondition  the server refused (the message says what);
//         kDataLoss          the server broke VMBus' rules where the real guest
//                            would stop; every later call says so too;
//         kInvalidArgument   options that no guest can have.
class Guest {
 public:
  // Connects to the link, passes RAM and SynIC, and starts; no VMBus yet.
  static absl::StatusOr<std::unique_ptr<Guest>> Start(const GuestOptions& options);
  virtual ~Guest() = default;

  // Negotiates a version and asks for offers; returns when all are delivered.
  virtual absl::Status Connect() = 0;
  virtual std::string version() const = 0;  // "6.0"

  // Offers that are live now (rescinded ones are gone).
  virtual const std::vector<GuestOffer>& offers() const = 0;

  // Waits until a channel of this interface and instance is offered.
  virtual absl::StatusOr<GuestOffer> WaitForOffer(const Guid& interface_id,
                                                  const Guid& instance_id) = 0;
  // Waits until the offer with this channel id is rescinded.
  virtual absl::Status WaitForRescind(uint32_t channel_id) = 0;

  // Creates the GPADL and opens the channel.
  virtual absl::StatusOr<std::unique_ptr<GuestChannel>> Open(const GuestOffer& offer) = 0;
  // Closes it and tears its GPADL down; the channel may be opened again.
  virtual absl::Status Close(std::unique_ptr<GuestChannel> channel) = 0;
  // Gives a rescinded channel's id back (profile linux; firmware never does).
  // REQUIRES: no GuestChannel of it is left.
  virtual absl::Status Release(uint32_t channel_id) = 0;
  virtual absl::Status ModifyChannel(uint32_t channel_id, uint32_t target_vp) = 0;
  // Ends VMBus and waits for the server's word.
  virtual absl::Status Unload() = 0;
  // The VMM resets the VM: link RESET; Connect may follow.
  virtual absl::Status ResetVm() = 0;

  // Posts arbitrary bytes, for tests of bad input. The status is the VMM's
  // hypercall status: 0, 5, 0x12, 0x13. An answer that it brings and nobody
  // awaits ends a guest of profile firmware; profile linux ignores it.
  virtual uint32_t PostRaw(uint32_t connection, std::span<const std::byte> message) = 0;
  // Pages for the guest's own use, side by side (profile firmware) or scattered.
  // Errors: kResourceExhausted.
  virtual absl::StatusOr<std::shared_ptr<const GuestPages>> AllocateBuffer(size_t pages) = 0;
  // Whole RAM, for tests that break it.
  virtual std::span<std::byte> ram() = 0;
  // Ring pages of an open channel within ram(), for tests that break them: one
  // span a page, the guest->host ring's control page first. RingBytes is the
  // same as one span, and empty where the pages are scattered (profile linux).
  virtual std::vector<std::span<std::byte>> RingPages(const GuestChannel& channel) = 0;
  virtual std::span<std::byte> RingBytes(const GuestChannel& channel) = 0;
};

}  // namespace vmbfs::hyperv
