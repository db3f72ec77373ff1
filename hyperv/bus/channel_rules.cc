#include "hyperv/bus/channel_rules.h"

#include <array>
#include <cstddef>

namespace vmbfs::hyperv {
namespace {

using Row = std::array<Reaction, kChannelStateCount>;

constexpr Reaction kDrop = Reaction::kDrop;
constexpr Reaction kFail = Reaction::kRefuse;
constexpr Reaction kDo = Reaction::kServe;
constexpr Reaction kLater = Reaction::kServeAfterClose;

// One row a request, in the order of ChannelRequest; one column a state.
// Reserved channels are not offered: their open is refused, their close has
// nothing to close.
constexpr std::array<Row, kChannelRequestCount> kReactions = {{
    // clang-format off
    // released closed opening open   closing reopen revoking revoked closing-release
    {kDrop,     kDo,   kDrop,  kDrop, kLater, kDrop, kDrop,   kDrop,  kDrop},  // open
    {kDrop,     kDrop, kDrop,  kDo,   kDrop,  kDrop, kDrop,   kDrop,  kDrop},  // close
    {kDrop,     kFail, kDrop,  kDrop, kDrop,  kDrop, kDrop,   kDrop,  kDrop},  // open reserved
    {kDrop,     kDrop, kDrop,  kDrop, kDrop,  kDrop, kDrop,   kDrop,  kDrop},  // close reserved
    {kDrop,     kDo,   kDrop,  kDrop, kLater, kDrop, kLater,  kDo,    kDrop},  // release
    {kFail,     kFail, kFail,  kDo,   kFail,  kFail, kFail,   kFail,  kFail},  // modify
    {kFail,     kDo,   kDo,    kDo,   kDo,    kDo,   kDo,     kDo,    kFail},  // create GPADL
    {kDrop,     kDo,   kDo,    kDo,   kDo,    kDo,   kDo,     kDo,    kDrop},  // tear GPADL down
    // clang-format on
}};

}  // namespace

absl::string_view ChannelStateText(ChannelState state) {
  constexpr std::array<absl::string_view, kChannelStateCount> kTexts = {
      "released",       "closed",   "opening", "open",           "closing",
      "closing-reopen", "revoking", "revoked", "closing-release"};
  return kTexts[static_cast<size_t>(state)];
}

bool RingInUse(ChannelState state) {
  return state != ChannelState::kReleased && state != ChannelState::kClosed &&
         state != ChannelState::kRevoked;
}

Reaction ReactionTo(ChannelRequest request, ChannelState state) {
  return kReactions[static_cast<size_t>(request)][static_cast<size_t>(state)];
}

}  // namespace vmbfs::hyperv
