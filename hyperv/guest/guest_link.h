// The forms of the link between a VMM and the server.
//
// Thread safety: any thread; values and pure functions.

#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace vmbfs::hyperv {

enum class GuestLink {
  kDirect,    // SynIC level: the server writes message slots and event flags
  kMediated,  // SynIC level: the VMM writes them for the server
  kChannel,   // channel level: the VMM has a VMBus of its own
};

inline constexpr std::array kGuestLinks = {GuestLink::kDirect, GuestLink::kMediated,
                                           GuestLink::kChannel};

// "direct", "mediated", "channel".
constexpr std::string_view GuestLinkName(GuestLink link) {
  switch (link) {
    case GuestLink::kMediated:
      return "mediated";
    case GuestLink::kChannel:
      return "channel";
    case GuestLink::kDirect:
      break;
  }
  return "direct";
}

// nullopt for any other word.
constexpr std::optional<GuestLink> ParseGuestLink(std::string_view name) {
  for (GuestLink link : kGuestLinks) {
    if (name == GuestLinkName(link)) return link;
  }
  return std::nullopt;
}

}  // namespace vmbfs::hyperv
