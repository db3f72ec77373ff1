// The channel level's frames as typed values, as link_codec.h. No I/O but the
// reading of a page frame list from a memfd.
//
// Trust: every byte parsed here is the VMM's, and what it passes on of the
// guest's. Format: link_channel_format.h, README.md.
// Thread safety: any thread; no state.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_codec.h"

namespace vmbfs::hyperv {

struct LinkOfferOk {
  uint32_t channel = 0;
  uint32_t relid = 0;
  uint32_t connection = 0;
};

struct LinkGpadlAdd {
  uint32_t channel = 0;
  uint32_t gpadl = 0;
  uint32_t range_count = 0;
  uint32_t pages = 0;
  // `pages` of them, or none: then the frame's one descriptor has them.
  std::vector<uint64_t> page_frames;
};

struct LinkGpadlDel {
  uint32_t channel = 0;
  uint32_t gpadl = 0;
};

// The frame has two descriptors, three with kLinkOpenDirectEvent.
struct LinkOpen {
  uint32_t channel = 0;
  uint32_t ring_gpadl = 0;
  uint32_t downstream_page_offset = 0;
  uint32_t target_vp = 0;
  uint32_t flags = 0;
};

struct LinkModify {
  uint32_t channel = 0;
  uint32_t target_vp = 0;
};

// Parsers of payloads. Errors: kInvalidArgument with the rule that was broken.
absl::StatusOr<LinkOfferOk> ParseOfferOk(std::span<const std::byte> payload);
absl::StatusOr<LinkGpadlAdd> ParseGpadlAdd(std::span<const std::byte> payload, size_t descriptors);
absl::StatusOr<LinkGpadlDel> ParseGpadlDel(std::span<const std::byte> payload);
absl::StatusOr<LinkOpen> ParseOpen(std::span<const std::byte> payload, size_t descriptors);
absl::StatusOr<LinkModify> ParseModify(std::span<const std::byte> payload);
// CLOSE and RELEASE; `name` is the frame's.
absl::StatusOr<uint32_t> ParseChannel(const char* name, std::span<const std::byte> payload);

// Reads `pages` page frames from the start of a memfd, once.
// REQUIRES: `pages` is within a bound, since it is allocated for.
// Errors: kInvalidArgument: no memfd, not sealed against shrinking, growing and
// writing, or shorter than the list.
absl::StatusOr<std::vector<uint64_t>> ReadPageFrames(const UniqueFd& memfd, uint32_t pages);

// Whole frames, ready to be sent.
std::vector<std::byte> BuildOffer(uint64_t seq, const ChannelOffer& offer);
std::vector<std::byte> BuildRevoke(uint64_t seq, uint32_t channel);
// GPADL_RESULT or OPEN_RESULT.
std::vector<std::byte> BuildResult(const LinkHeader& request, uint32_t status);

}  // namespace vmbfs::hyperv
