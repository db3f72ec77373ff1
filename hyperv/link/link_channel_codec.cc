#include "hyperv/link/link_channel_codec.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/endian/conversion.hpp>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "hyperv/link/link_payload.h"

namespace vmbfs::hyperv {

absl::StatusOr<LinkOfferOk> ParseOfferOk(std::span<const std::byte> payload) {
  LinkOfferOkWire wire{};
  if (absl::Status status = LoadPayload("OFFER reply", payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero("OFFER reply");
  return LinkOfferOk{.channel = wire.channel.value(),
                     .relid = wire.relid.value(),
                     .connection = wire.connection.value()};
}

absl::StatusOr<LinkGpadlAdd> ParseGpadlAdd(std::span<const std::byte> payload, size_t descriptors) {
  LinkGpadlAddWire wire{};
  if (payload.size() < sizeof(wire)) {
    return BrokenPayload("GPADL_ADD payload is ", payload.size(), " bytes; at least ", sizeof(wire),
                         " are needed");
  }
  std::memcpy(&wire, payload.data(), sizeof(wire));
  LinkGpadlAdd add{.channel = wire.channel.value(),
                   .gpadl = wire.gpadl.value(),
                   .range_count = wire.range_count.value(),
                   .pages = wire.pages.value(),
                   .page_frames = {}};
  const bool is_inline = add.pages <= kLinkInlinePageFramesMax;
  if (descriptors != (is_inline ? 0 : 1)) {
    return BrokenPayload("GPADL_ADD of ", add.pages, " pages with ", descriptors, " descriptors");
  }
  const std::span<const std::byte> list = payload.subspan(sizeof(wire));
  if (list.size() != (is_inline ? add.pages * sizeof(uint64_t) : 0)) {
    return BrokenPayload("GPADL_ADD of ", add.pages, " pages with a list of ", list.size(),
                         " bytes");
  }
  add.page_frames.resize(list.size() / sizeof(uint64_t));  // at most kLinkInlinePageFramesMax
  if (!list.empty()) std::memcpy(add.page_frames.data(), list.data(), list.size());
  for (uint64_t& page_frame : add.page_frames) boost::endian::little_to_native_inplace(page_frame);
  return add;
}

absl::StatusOr<LinkGpadlDel> ParseGpadlDel(std::span<const std::byte> payload) {
  LinkGpadlDelWire wire{};
  if (absl::Status status = LoadPayload("GPADL_DEL", payload, wire); !status.ok()) return status;
  return LinkGpadlDel{.channel = wire.channel.value(), .gpadl = wire.gpadl.value()};
}

absl::StatusOr<LinkOpen> ParseOpen(std::span<const std::byte> payload, size_t descriptors) {
  LinkOpenWire wire{};
  if (absl::Status status = LoadPayload("OPEN", payload, wire); !status.ok()) return status;
  const LinkOpen open{.channel = wire.channel.value(),
                      .ring_gpadl = wire.ring_gpadl.value(),
                      .downstream_page_offset = wire.downstream_page_offset.value(),
                      .target_vp = wire.target_vp.value(),
                      .flags = wire.flags.value()};
  const bool direct_event = (open.flags & kLinkOpenDirectEvent) != 0;
  if (descriptors != (direct_event ? 3 : 2)) {
    return BrokenPayload("OPEN with flags 0x", absl::Hex(open.flags), " and ", descriptors,
                         " descriptors");
  }
  if (!direct_event && (wire.siefp_region.value() != 0 || wire.event_flag.value() != 0 ||
                        wire.siefp_offset.value() != 0)) {
    return ReservedNotZero("OPEN");
  }
  return open;
}

absl::StatusOr<LinkModify> ParseModify(std::span<const std::byte> payload) {
  LinkModifyWire wire{};
  if (absl::Status status = LoadPayload("MODIFY", payload, wire); !status.ok()) return status;
  return LinkModify{.channel = wire.channel.value(), .target_vp = wire.target_vp.value()};
}

absl::StatusOr<uint32_t> ParseChannel(const char* name, std::span<const std::byte> payload) {
  LinkChannelWire wire{};
  if (absl::Status status = LoadPayload(name, payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero(name);
  return wire.channel.value();
}

absl::StatusOr<std::vector<uint64_t>> ReadPageFrames(const UniqueFd& memfd, uint32_t pages) {
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  // Asked before anything else: only a memfd has seals, and reading one does
  // not wait for somebody else.
  const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) {
    return BrokenPayload("the list is not in a memfd sealed against shrinking, growing, writing");
  }
  std::vector<uint64_t> page_frames(pages);
  const size_t bytes = page_frames.size() * sizeof(uint64_t);
  for (size_t done = 0; done < bytes;) {
    std::byte* const to = reinterpret_cast<std::byte*>(page_frames.data()) + done;
    const ssize_t got = ::pread(memfd.get(), to, bytes - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      return BrokenPayload("the list's memfd ends after ", done, " of ", bytes, " bytes");
    done += static_cast<size_t>(got);
  }
  for (uint64_t& page_frame : page_frames) boost::endian::little_to_native_inplace(page_frame);
  return page_frames;
}

std::vector<std::byte> BuildOffer(uint64_t seq, const ChannelOffer& offer) {
  LinkOfferWire wire{};
  std::memcpy(wire.interface_id, offer.interface_id.bytes.data(), sizeof(wire.interface_id));
  std::memcpy(wire.instance_id, offer.instance_id.bytes.data(), sizeof(wire.instance_id));
  wire.flags = offer.flags;
  wire.subchannel_index = offer.subchannel_index;
  wire.wants_monitor = offer.monitored ? 1 : 0;
  std::memcpy(wire.user_defined, offer.user_defined.data(), sizeof(wire.user_defined));
  return BuildFrame(LinkType::kOffer, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildRevoke(uint64_t seq, uint32_t channel) {
  LinkChannelWire wire{};
  wire.channel = channel;
  return BuildFrame(LinkType::kRevoke, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildResult(const LinkHeader& request, uint32_t status) {
  LinkResultWire wire{};
  wire.status = status;
  return BuildFrame(request.type(), kLinkFlagReply, request.seq, 0, PayloadOf(wire));
}

}  // namespace vmbfs::hyperv
