// Bytes of the messages that a guest posts. Source: shared/specs/vmbus.md
// section 2.

#pragma once

#include <array>
#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

#include "hyperv/guid/guid.h"
#include "hyperv/message/message_header.h"

namespace vmbfs::hyperv {

static_assert(sizeof(Guid) == 16 && alignof(Guid) == 1);

// InitiateContact (section 2.3).
struct InitiateContactMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t version;
  boost::endian::little_uint32_buf_t target_vp;
  // Below 5.0 these eight bytes are the interrupt page's address.
  uint8_t target_sint;  // from 5.0
  uint8_t target_vtl;   // from 5.1
  boost::endian::little_uint16_buf_t reserved;
  boost::endian::little_uint32_buf_t feature_flags;  // from 6.0
  boost::endian::little_uint64_buf_t parent_to_child_monitor_page_gpa;
  boost::endian::little_uint64_buf_t child_to_parent_monitor_page_gpa;
};
static_assert(sizeof(InitiateContactMessage) == 40 && alignof(InitiateContactMessage) == 1);
static_assert(offsetof(InitiateContactMessage, version) == 8);
static_assert(offsetof(InitiateContactMessage, target_vp) == 12);
static_assert(offsetof(InitiateContactMessage, target_sint) == 16);
static_assert(offsetof(InitiateContactMessage, target_vtl) == 17);
static_assert(offsetof(InitiateContactMessage, reserved) == 18);
static_assert(offsetof(InitiateContactMessage, feature_flags) == 20);
static_assert(offsetof(InitiateContactMessage, parent_to_child_monitor_page_gpa) == 24);
static_assert(offsetof(InitiateContactMessage, child_to_parent_monitor_page_gpa) == 32);

// InitiateContact with kFeatureClientId.
struct InitiateContact2Message {
  InitiateContactMessage contact;
  Guid client_id;
};
static_assert(sizeof(InitiateContact2Message) == 56 && alignof(InitiateContact2Message) == 1);
static_assert(offsetof(InitiateContact2Message, client_id) == 40);

// OpenChannel (section 2.7).
struct OpenChannelMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t open_id;
  boost::endian::little_uint32_buf_t ring_gpadl_id;
  boost::endian::little_uint32_buf_t target_vp;
  boost::endian::little_uint32_buf_t downstream_page_offset;
  std::array<std::byte, 120> user_data;
};
static_assert(sizeof(OpenChannelMessage) == 148 && alignof(OpenChannelMessage) == 1);
static_assert(offsetof(OpenChannelMessage, channel_id) == 8);
static_assert(offsetof(OpenChannelMessage, open_id) == 12);
static_assert(offsetof(OpenChannelMessage, ring_gpadl_id) == 16);
static_assert(offsetof(OpenChannelMessage, target_vp) == 20);
static_assert(offsetof(OpenChannelMessage, downstream_page_offset) == 24);
static_assert(offsetof(OpenChannelMessage, user_data) == 28);

// OpenChannel with kFeatureGuestSignalParameters or
// kFeatureInterruptRedirection; without them the tail means nothing.
struct OpenChannel2Message {
  OpenChannelMessage open;
  boost::endian::little_uint32_buf_t connection_id;
  boost::endian::little_uint16_buf_t event_flag;
  boost::endian::little_uint16_buf_t flags;
};
static_assert(sizeof(OpenChannel2Message) == 156 && alignof(OpenChannel2Message) == 1);
static_assert(offsetof(OpenChannel2Message, connection_id) == 148);
static_assert(offsetof(OpenChannel2Message, event_flag) == 152);
static_assert(offsetof(OpenChannel2Message, flags) == 154);

struct OpenReservedChannelMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t target_vp;
  boost::endian::little_uint32_buf_t target_sint;  // the low eight bits
  boost::endian::little_uint32_buf_t ring_gpadl_id;
  boost::endian::little_uint32_buf_t downstream_page_offset;
};
static_assert(sizeof(OpenReservedChannelMessage) == 28 && alignof(OpenReservedChannelMessage) == 1);
static_assert(offsetof(OpenReservedChannelMessage, channel_id) == 8);
static_assert(offsetof(OpenReservedChannelMessage, target_vp) == 12);
static_assert(offsetof(OpenReservedChannelMessage, target_sint) == 16);
static_assert(offsetof(OpenReservedChannelMessage, ring_gpadl_id) == 20);
static_assert(offsetof(OpenReservedChannelMessage, downstream_page_offset) == 24);

struct CloseReservedChannelMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t target_vp;
  boost::endian::little_uint32_buf_t target_sint;  // the low eight bits
};
static_assert(sizeof(CloseReservedChannelMessage) == 20 &&
              alignof(CloseReservedChannelMessage) == 1);
static_assert(offsetof(CloseReservedChannelMessage, channel_id) == 8);
static_assert(offsetof(CloseReservedChannelMessage, target_vp) == 12);
static_assert(offsetof(CloseReservedChannelMessage, target_sint) == 16);

// Up to kGpadlHeaderWordsMax u64 of range data follow (section 2.8).
struct GpadlHeaderMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t gpadl_id;
  boost::endian::little_uint16_buf_t range_buffer_bytes;
  boost::endian::little_uint16_buf_t range_count;
};
static_assert(sizeof(GpadlHeaderMessage) == 20 && alignof(GpadlHeaderMessage) == 1);
static_assert(offsetof(GpadlHeaderMessage, channel_id) == 8);
static_assert(offsetof(GpadlHeaderMessage, gpadl_id) == 12);
static_assert(offsetof(GpadlHeaderMessage, range_buffer_bytes) == 16);
static_assert(offsetof(GpadlHeaderMessage, range_count) == 18);

// Up to kGpadlBodyWordsMax u64 of range data follow.
struct GpadlBodyMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t message_number;  // no sequence check
  boost::endian::little_uint32_buf_t gpadl_id;
};
static_assert(sizeof(GpadlBodyMessage) == 16 && alignof(GpadlBodyMessage) == 1);
static_assert(offsetof(GpadlBodyMessage, message_number) == 8);
static_assert(offsetof(GpadlBodyMessage, gpadl_id) == 12);

struct GpadlTeardownMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t gpadl_id;
};
static_assert(sizeof(GpadlTeardownMessage) == 16 && alignof(GpadlTeardownMessage) == 1);
static_assert(offsetof(GpadlTeardownMessage, channel_id) == 8);
static_assert(offsetof(GpadlTeardownMessage, gpadl_id) == 12);

// TlConnectRequest (section 2.9).
struct TlConnectRequestMessage {
  MessageHeader header;
  Guid endpoint_id;
  Guid service_id;
};
static_assert(sizeof(TlConnectRequestMessage) == 40 && alignof(TlConnectRequestMessage) == 1);
static_assert(offsetof(TlConnectRequestMessage, endpoint_id) == 8);
static_assert(offsetof(TlConnectRequestMessage, service_id) == 24);

// TlConnectRequest from 5.2; the short form stays legal.
struct TlConnectRequest2Message {
  TlConnectRequestMessage request;
  Guid silo_id;
};
static_assert(sizeof(TlConnectRequest2Message) == 56 && alignof(TlConnectRequest2Message) == 1);
static_assert(offsetof(TlConnectRequest2Message, silo_id) == 40);

struct ModifyChannelMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t target_vp;
};
static_assert(sizeof(ModifyChannelMessage) == 16 && alignof(ModifyChannelMessage) == 1);
static_assert(offsetof(ModifyChannelMessage, channel_id) == 8);
static_assert(offsetof(ModifyChannelMessage, target_vp) == 12);

struct ModifyConnectionMessage {
  MessageHeader header;
  boost::endian::little_uint64_buf_t parent_to_child_monitor_page_gpa;
  boost::endian::little_uint64_buf_t child_to_parent_monitor_page_gpa;
};
static_assert(sizeof(ModifyConnectionMessage) == 24 && alignof(ModifyConnectionMessage) == 1);
static_assert(offsetof(ModifyConnectionMessage, parent_to_child_monitor_page_gpa) == 8);
static_assert(offsetof(ModifyConnectionMessage, child_to_parent_monitor_page_gpa) == 16);

}  // namespace vmbfs::hyperv
