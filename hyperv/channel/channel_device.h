// What serves one offered channel: the seam between VMBus and a device.
//
// A channel-level link (the VMM has a VMBus of its own) and the bus in front of
// a SynIC-level link both drive devices through this interface alone.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel.h"
#include "hyperv/guid/guid.h"

namespace vmbfs::hyperv {

// Names an offer on the server's side for as long as its link connection lives;
// unlike a channel id it is never used again.
enum class OfferId : uint64_t {};

// What a guest is told of a channel (OfferChannel, shared/specs/vmbus.md 2.6).
struct ChannelOffer {
  Guid interface_id;
  Guid instance_id;
  uint16_t subchannel_index = 0;
  uint16_t flags = 0;
  std::array<std::byte, 120> user_defined{};
  // The guest shall signal through the monitor page, where it has one. Linux 6.1
  // drives a channel from user space on this condition only.
  bool monitored = false;
};

inline constexpr uint16_t kOfferFlagNamedPipe = 0x0010;

// The offer of a pipe in message mode, the form vmbfs uses.
ChannelOffer MessagePipeOffer(const Guid& interface_id, const Guid& instance_id);

// What a turn came to.
struct ChannelTurn {
  enum class Next {
    kMore,     // work is left: come back after others had their turn
    kIdle,     // nothing to do now, and no signal was asked for: Run again, or Arm
               // before sleeping
    kWaiting,  // `wake` will be called; nothing is to be done before
  };
  Next next = Next::kIdle;
  uint32_t requests = 0;  // taken or answered: the work that was found
};

// What Arm found.
enum class Armed {
  kSignal,   // the guest will signal
  kArrived,  // there is work already: Run
  // The guest makes room without telling (shared/specs/vmbus.md section 4.3):
  // Run again by a timer.
  kUnsignalled,
};

// One device behind one channel offer.
//
// Waiting is the caller's: after a Run that left nothing to do it may Run again and
// again, and the guest, whose interrupt mask stays set meanwhile, signals nothing; or
// it calls Arm and sleeps until the guest's signal.
//
// Thread safety: every call comes on the VM's strand.
// Order: (Open (Run Arm?)* Close)*; at most one open at a time.
// Rings: touched within these calls only. While the VM is paused none is made,
// so nothing is written to its memory; what ends meanwhile waits for a Run.
class ChannelDevice {
 public:
  virtual ~ChannelDevice() = default;

  // Constant through the device's life.
  virtual const ChannelOffer& offer() const = 0;

  // The guest opened the channel. The device keeps `channel` until Close.
  // `wake` may be called from the strand at any time until Close returns; a
  // Run follows soon after.
  //
  // Errors: any; the open is refused and the guest told so.
  virtual absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()> wake) = 0;

  // There may be work: the guest signalled, the channel was just opened, the
  // device asked for a wake, or the caller looks without a reason. Does at most
  // one turn of work.
  //
  // Errors: the guest broke the format; service on the channel ends until it
  // is closed and opened again. The reason is shown to administrators.
  virtual absl::StatusOr<ChannelTurn> Run() = 0;

  // Before sleeping, after a Run that said kIdle: asks the guest to signal what the
  // device waits for. Does no work.
  // Errors: as Run.
  virtual absl::StatusOr<Armed> Arm() = 0;

  // The channel is closed: on return the device has let go of the rings.
  // Also called after Run or Arm failed.
  virtual void Close() = 0;
};

}  // namespace vmbfs::hyperv
