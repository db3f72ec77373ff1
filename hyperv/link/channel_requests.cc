#include "hyperv/link/channel_requests.h"

#include <array>
#include <cstddef>

namespace vmbfs::hyperv {
namespace {

using Row = std::array<ChannelLevelReaction, kOfferStateCount>;

constexpr auto kDo = ChannelLevelReaction::kServe;
constexpr auto kYes = ChannelLevelReaction::kAnswer;
constexpr auto kFail = ChannelLevelReaction::kFail;
constexpr auto kBad = ChannelLevelReaction::kRefuse;

// One row a request, in the order of ChannelLevelRequest; one column a state.
constexpr std::array<Row, kChannelLevelRequestCount> kReactions = {{
    // clang-format off
    // offering closed opening open  revoking revoked
    {kBad,      kDo,   kBad,   kBad, kFail,   kFail},  // open
    {kBad,      kYes,  kDo,    kDo,  kYes,    kYes},   // close
    {kBad,      kBad,  kBad,   kDo,  kBad,    kBad},   // modify
    {kBad,      kDo,   kDo,    kDo,  kDo,     kDo},    // add or delete a GPADL
    {kBad,      kDo,   kDo,    kDo,  kDo,     kDo},    // release
    // clang-format on
}};

}  // namespace

absl::string_view OfferStateText(OfferState state) {
  constexpr std::array<absl::string_view, kOfferStateCount> kTexts = {
      "offering", "closed", "opening", "open", "revoking", "revoked"};
  return kTexts[static_cast<size_t>(state)];
}

ChannelLevelReaction ReactionTo(ChannelLevelRequest request, OfferState state) {
  return kReactions[static_cast<size_t>(request)][static_cast<size_t>(state)];
}

}  // namespace vmbfs::hyperv
