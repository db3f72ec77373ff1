// The states of an offer at the channel level, and what each request of the VMM
// gets in each of them: README.md's table.

#pragma once

#include "absl/strings/string_view.h"

namespace vmbfs::hyperv {

enum class OfferState {
  kOffering,  // OFFER was not sent or not answered; the VMM has no name for it
  kClosed,
  kOpening,  // OPEN was not answered
  kOpen,
  kRevoking,  // REVOKE was not sent or not answered
  kRevoked,   // RELEASE has not come
};
inline constexpr int kOfferStateCount = 6;

absl::string_view OfferStateText(OfferState state);

enum class ChannelLevelRequest { kOpen, kClose, kModify, kGpadl, kRelease };
inline constexpr int kChannelLevelRequestCount = 5;

enum class ChannelLevelReaction {
  kServe,
  kAnswer,  // there is nothing to do
  kFail,    // the guest is told of failure: it could not know
  kRefuse,  // the VMM's mistake
};

// REQUIRES: not kOffering.
ChannelLevelReaction ReactionTo(ChannelLevelRequest request, OfferState state);

}  // namespace vmbfs::hyperv
