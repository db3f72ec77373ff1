// Bytes of the messages that the host puts into a guest's message slot. Source:
// shared/specs/vmbus.md section 2.

#pragma once

#include <array>
#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

#include "hyperv/guid/guid.h"
#include "hyperv/message/message_header.h"

namespace vmbfs::hyperv {

// VersionResponse below 6.0, and "unsupported" of any version (section 2.4).
struct VersionResponseMessage {
  MessageHeader header;
  uint8_t version_supported;
  uint8_t connection_state;
  boost::endian::little_uint16_buf_t padding;
  // Below 5.0 the accepted version.
  boost::endian::little_uint32_buf_t message_connection_id;
};
static_assert(sizeof(VersionResponseMessage) == 16 && alignof(VersionResponseMessage) == 1);
static_assert(offsetof(VersionResponseMessage, version_supported) == 8);
static_assert(offsetof(VersionResponseMessage, connection_state) == 9);
static_assert(offsetof(VersionResponseMessage, padding) == 10);
static_assert(offsetof(VersionResponseMessage, message_connection_id) == 12);

// VersionResponse at 6.0.
struct VersionResponse2Message {
  VersionResponseMessage response;
  boost::endian::little_uint32_buf_t supported_features;
};
static_assert(sizeof(VersionResponse2Message) == 20 && alignof(VersionResponse2Message) == 1);
static_assert(offsetof(VersionResponse2Message, supported_features) == 16);

// VersionResponse at 6.0 with kFeatureServerMonitorPages.
struct VersionResponse3Message {
  VersionResponse2Message response;
  boost::endian::little_uint32_buf_t padding;
  boost::endian::little_uint64_buf_t parent_to_child_monitor_page_gpa;
  boost::endian::little_uint64_buf_t child_to_parent_monitor_page_gpa;
};
static_assert(sizeof(VersionResponse3Message) == 40 && alignof(VersionResponse3Message) == 1);
static_assert(offsetof(VersionResponse3Message, padding) == 20);
static_assert(offsetof(VersionResponse3Message, parent_to_child_monitor_page_gpa) == 24);
static_assert(offsetof(VersionResponse3Message, child_to_parent_monitor_page_gpa) == 32);

// OfferChannel (section 2.6).
struct OfferChannelMessage {
  MessageHeader header;
  Guid interface_id;
  Guid instance_id;
  std::array<boost::endian::little_uint32_buf_t, 4> reserved;
  boost::endian::little_uint16_buf_t flags;
  boost::endian::little_uint16_buf_t mmio_megabytes;
  std::array<std::byte, 120> user_defined;
  boost::endian::little_uint16_buf_t subchannel_index;
  boost::endian::little_uint16_buf_t optional_mmio_megabytes;
  boost::endian::little_uint32_buf_t channel_id;
  uint8_t monitor_id;
  uint8_t monitor_allocated;
  boost::endian::little_uint16_buf_t dedicated_interrupt;
  boost::endian::little_uint32_buf_t connection_id;
};
static_assert(sizeof(OfferChannelMessage) == 196 && alignof(OfferChannelMessage) == 1);
static_assert(offsetof(OfferChannelMessage, interface_id) == 8);
static_assert(offsetof(OfferChannelMessage, instance_id) == 24);
static_assert(offsetof(OfferChannelMessage, reserved) == 40);
static_assert(offsetof(OfferChannelMessage, flags) == 56);
static_assert(offsetof(OfferChannelMessage, mmio_megabytes) == 58);
static_assert(offsetof(OfferChannelMessage, user_defined) == 60);
static_assert(offsetof(OfferChannelMessage, subchannel_index) == 180);
static_assert(offsetof(OfferChannelMessage, optional_mmio_megabytes) == 182);
static_assert(offsetof(OfferChannelMessage, channel_id) == 184);
static_assert(offsetof(OfferChannelMessage, monitor_id) == 188);
static_assert(offsetof(OfferChannelMessage, monitor_allocated) == 189);
static_assert(offsetof(OfferChannelMessage, dedicated_interrupt) == 190);
static_assert(offsetof(OfferChannelMessage, connection_id) == 192);

struct OpenChannelResultMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t open_id;
  boost::endian::little_uint32_buf_t status;
};
static_assert(sizeof(OpenChannelResultMessage) == 20 && alignof(OpenChannelResultMessage) == 1);
static_assert(offsetof(OpenChannelResultMessage, channel_id) == 8);
static_assert(offsetof(OpenChannelResultMessage, open_id) == 12);
static_assert(offsetof(OpenChannelResultMessage, status) == 16);

struct GpadlCreatedMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t gpadl_id;
  boost::endian::little_uint32_buf_t status;
};
static_assert(sizeof(GpadlCreatedMessage) == 20 && alignof(GpadlCreatedMessage) == 1);
static_assert(offsetof(GpadlCreatedMessage, channel_id) == 8);
static_assert(offsetof(GpadlCreatedMessage, gpadl_id) == 12);
static_assert(offsetof(GpadlCreatedMessage, status) == 16);

// Names no channel.
struct GpadlTorndownMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t gpadl_id;
};
static_assert(sizeof(GpadlTorndownMessage) == 12 && alignof(GpadlTorndownMessage) == 1);
static_assert(offsetof(GpadlTorndownMessage, gpadl_id) == 8);

struct TlConnectRequestResultMessage {
  MessageHeader header;
  Guid endpoint_id;
  Guid service_id;
  boost::endian::little_uint32_buf_t status;
};
static_assert(sizeof(TlConnectRequestResultMessage) == 44 &&
              alignof(TlConnectRequestResultMessage) == 1);
static_assert(offsetof(TlConnectRequestResultMessage, endpoint_id) == 8);
static_assert(offsetof(TlConnectRequestResultMessage, service_id) == 24);
static_assert(offsetof(TlConnectRequestResultMessage, status) == 40);

struct ModifyChannelResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t status;
};
static_assert(sizeof(ModifyChannelResponseMessage) == 16 &&
              alignof(ModifyChannelResponseMessage) == 1);
static_assert(offsetof(ModifyChannelResponseMessage, channel_id) == 8);
static_assert(offsetof(ModifyChannelResponseMessage, status) == 12);

struct ModifyConnectionResponseMessage {
  MessageHeader header;
  uint8_t connection_state;
};
static_assert(sizeof(ModifyConnectionResponseMessage) == 9 &&
              alignof(ModifyConnectionResponseMessage) == 1);
static_assert(offsetof(ModifyConnectionResponseMessage, connection_state) == 8);

}  // namespace vmbfs::hyperv
