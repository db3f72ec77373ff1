// The states of a channel, and what each request of a guest gets in each of
// them: the table of shared/specs/vmbus.md section 3.3 in one place.

#pragma once

#include "absl/strings/string_view.h"

namespace vmbfs::hyperv {

enum class ChannelState {
  kReleased,        // the guest has no id for it; an unknown id counts as this
  kClosed,          // offered
  kOpening,         // the device is asked to open
  kOpen,            //
  kClosing,         // the device is asked to close
  kClosingReopen,   // the same, and the guest asked for the next open already
  kRevoking,        // taken back by the host; the device closes, then Rescind goes out
  kRevoked,         // Rescind was sent; the guest still holds the id
  kClosingRelease,  // the guest let go of the id; the device still closes
};
inline constexpr int kChannelStateCount = 9;

absl::string_view ChannelStateText(ChannelState state);

// Whether the device uses the ring, or may.
bool RingInUse(ChannelState state);

enum class ChannelRequest {
  kOpen,
  kClose,
  kOpenReserved,
  kCloseReserved,
  kRelease,
  kModify,
  kCreateGpadl,
  kTeardownGpadl,
};
inline constexpr int kChannelRequestCount = 8;

enum class Reaction {
  kDrop,             // no answer, nothing changes
  kRefuse,           // answered with failure
  kServe,            //
  kServeAfterClose,  // once the close under way is done
};

Reaction ReactionTo(ChannelRequest request, ChannelState state);

}  // namespace vmbfs::hyperv
