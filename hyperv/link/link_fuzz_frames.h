// Legal frames and guest messages for link_fuzz.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_fuzz_server.h"
#include "hyperv/link/link_fuzz_vmm.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

inline LinkMemAddWire Region(uint32_t id, uint64_t gpa, uint64_t bytes) {
  LinkMemAddWire wire{};
  wire.id = id;
  wire.gpa = gpa;
  wire.bytes = bytes;
  return wire;
}

inline std::vector<std::byte> Hello(Form form) {
  return HelloPayload(2, "fuzz", form == Form::kChannel ? 2 : 1, form == Form::kMediated ? 2 : 1);
}

inline LinkSynicWire SynicOf(uint64_t simp_page, uint64_t siefp_page) {
  LinkSynicWire wire{};
  wire.scontrol = 1;
  wire.simp = simp_page * 4096 | 1;
  wire.siefp = siefp_page * 4096 | 1;
  wire.sint2 = 0x41;
  return wire;
}

inline LinkPostWire PostOf(uint64_t post_seq, std::span<const std::byte> message) {
  LinkPostWire wire{};
  wire.post_seq = post_seq;
  wire.connection = 1;
  wire.type = 1;
  wire.size = static_cast<uint32_t>(message.size());
  for (size_t i = 0; i < std::min<size_t>(message.size(), 240); ++i) {
    wire.payload[i] = std::to_integer<uint8_t>(message[i]);
  }
  return wire;
}

inline std::vector<std::byte> RingGpadl() {
  std::vector<std::byte> message = VmbusMessage(8, {1, 1, 0x10058, kRingPages * 4096, 0});
  for (uint64_t i = 0; i < kRingPages; ++i) {
    const uint64_t page_frame = (kRingGpa >> 12) + i;
    message.insert(message.end(), WireBytes(page_frame).begin(), WireBytes(page_frame).end());
  }
  return message;
}
inline std::vector<std::byte> OpenMessage() {
  std::vector<std::byte> message = VmbusMessage(5, {1, 77, 1, 0, kRingPages / 2});
  message.resize(148);
  return message;
}

// The channel level's.
inline std::vector<std::byte> GpadlAdd(uint32_t channel, uint32_t gpadl, uint32_t pages,
                                       uint32_t listed, uint32_t range_count) {
  LinkGpadlAddWire wire{};
  wire.channel = channel;
  wire.gpadl = gpadl;
  wire.range_count = range_count;
  wire.pages = pages;
  std::vector<std::byte> payload(WireBytes(wire).begin(), WireBytes(wire).end());
  for (uint64_t i = 0; i < listed; ++i) {
    const uint64_t page_frame = (kRingGpa >> 12) + i;
    payload.insert(payload.end(), WireBytes(page_frame).begin(), WireBytes(page_frame).end());
  }
  return payload;
}
inline LinkOpenWire ChannelOpen(uint32_t channel, uint32_t gpadl) {
  LinkOpenWire wire{};
  wire.channel = channel;
  wire.ring_gpadl = gpadl;
  wire.downstream_page_offset = kRingPages / 2;
  wire.vmbus_version = 0x00050003;
  return wire;
}
inline LinkChannelWire ChannelOf(uint32_t channel) {
  LinkChannelWire wire{};
  wire.channel = channel;
  return wire;
}

}  // namespace vmbfs::hyperv
