// The bytes that the guests of each profile post, as their real models do.
//
// Format: hyperv/message/message_format.h. Rules: shared/specs/vmbus.md 8.1 to 8.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

using GuestMessage = std::vector<std::byte>;

// What the profiles do differently besides their bytes.
struct ProfileTraits {
  std::vector<uint32_t> versions;  // in the order they are asked for
  size_t ring_pages = 0;           // of each ring, its control page included
  RamLayout ring_layout{};
  bool exact_sizes = false;  // an answer longer than its type is an error
  bool strict = false;       // an answer nobody waits for is an error
  bool releases = false;     // gives rescinded channel ids back
};
ProfileTraits TraitsOf(GuestProfile profile);

// Pages whose addresses an InitiateContact carries (profile linux).
struct ContactPages {
  uint64_t interrupt_page_gpa = 0;
  uint64_t parent_to_child_monitor_page_gpa = 0;
  uint64_t child_to_parent_monitor_page_gpa = 0;
};

// The message connection on which a version is asked for.
uint32_t ContactConnection(GuestProfile profile, uint32_t version);

GuestMessage BuildInitiateContact(GuestProfile profile, uint32_t version, uint32_t target_vp,
                                  const ContactPages& pages);

// One page-aligned range over `page_frames`: a header and as many bodies as
// they need, zero-padded to 240 bytes by the firmware.
std::vector<GuestMessage> BuildGpadl(GuestProfile profile, uint32_t channel_id, uint32_t gpadl_id,
                                     std::span<const uint64_t> page_frames);

uint32_t OpenIdOf(GuestProfile profile, uint32_t channel_id);
GuestMessage BuildOpenChannel(GuestProfile profile, uint32_t channel_id, uint32_t gpadl_id,
                              uint32_t target_vp, uint32_t downstream_page_offset);

GuestMessage BuildHeaderOnly(MessageType type);
GuestMessage BuildChannelId(MessageType type, uint32_t channel_id);
GuestMessage BuildGpadlTeardown(uint32_t channel_id, uint32_t gpadl_id);
GuestMessage BuildModifyChannel(uint32_t channel_id, uint32_t target_vp);

}  // namespace vmbfs::hyperv
