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

// One device behind one channel offer.
//
// Thread safety: every call comes on the VM's strand.
// Order: (Open Run* Close)*; at most one open at a time.
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

  // There may be work: the guest signalled, the channel was just opened, or the
  // device asked for a wake. Does at most one turn of work; returns true when
  // work is left that needs no signal to be seen (the caller comes back after
  // it has looked after others).
  //
  // Errors: the guest broke the format; service on the channel ends until it
  // is closed and opened again. The reason is shown to administrators.
  virtual absl::StatusOr<bool> Run() = 0;

  // The channel is closed: on return the device has let go of the rings.
  // Also called after Run failed.
  virtual void Close() = 0;
};

}  // namespace vmbfs::hyperv
