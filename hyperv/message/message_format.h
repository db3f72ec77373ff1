// Bytes of the VMBus channel messages, and nothing else: what both sides of the
// control plane put into a posted message or a message slot.
//
// Every structure begins with MessageHeader and is as long as its message; a
// type with a list behind it says so. Reserved and padding fields are zero on
// the wire and ignored when read. Source: shared/specs/vmbus.md section 2.

#pragma once

#include <array>
#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

#include "hyperv/guid/guid.h"

namespace vmbfs::hyperv {

// Largest payload of one posted message or message slot.
inline constexpr size_t kMessageBytesMax = 240;
// The interrupt source that VMBus messages and event flags use.
inline constexpr uint8_t kVmbusSint = 2;
inline constexpr uint8_t kSintMax = 15;
// Message type in a slot or a post that carries a VMBus message.
inline constexpr uint32_t kSynicMessageType = 1;

// Message connections a guest may post to (section 1.5).
inline constexpr uint32_t kMessageConnection = 1;
inline constexpr uint32_t kMultiClientMessageConnection = 4;

inline constexpr uint32_t kChannelIdMax = 2047;
inline constexpr uint32_t kEventFlagsPerSint = 2048;

enum class MessageType : uint32_t {
  kInvalid = 0,
  kOfferChannel = 1,
  kRescindChannelOffer = 2,
  kRequestOffers = 3,
  kAllOffersDelivered = 4,
  kOpenChannel = 5,
  kOpenChannelResult = 6,
  kCloseChannel = 7,
  kGpadlHeader = 8,
  kGpadlBody = 9,
  kGpadlCreated = 10,
  kGpadlTeardown = 11,
  kGpadlTorndown = 12,
  kRelIdReleased = 13,
  kInitiateContact = 14,
  kVersionResponse = 15,
  kUnload = 16,
  kUnloadComplete = 17,
  kOpenReservedChannel = 18,
  kCloseReservedChannel = 19,
  kCloseReservedChannelResponse = 20,
  kTlConnectRequest = 21,
  kModifyChannel = 22,
  kTlConnectRequestResult = 23,
  kModifyChannelResponse = 24,
  kModifyConnection = 25,
  kModifyConnectionResponse = 26,
  kPause = 27,
  kPauseResponse = 28,
  kResume = 29,
};

// Protocol versions: major in the upper half, minor in the lower (section 2.2).
inline constexpr uint32_t kVersionV1 = 0x0000000D;  // 0.13
inline constexpr uint32_t kVersion1_1 = 0x00010001;
inline constexpr uint32_t kVersion2_4 = 0x00020004;
inline constexpr uint32_t kVersion3_0 = 0x00030000;
inline constexpr uint32_t kVersion4_0 = 0x00040000;
inline constexpr uint32_t kVersion4_1 = 0x00040001;
inline constexpr uint32_t kVersion5_0 = 0x00050000;
inline constexpr uint32_t kVersion5_1 = 0x00050001;
inline constexpr uint32_t kVersion5_2 = 0x00050002;
inline constexpr uint32_t kVersion5_3 = 0x00050003;
inline constexpr uint32_t kVersion6_0 = 0x00060000;

// Feature flags of version 6.0 (section 2.2).
inline constexpr uint32_t kFeatureGuestSignalParameters = 0x01;
inline constexpr uint32_t kFeatureInterruptRedirection = 0x02;
inline constexpr uint32_t kFeatureModifyConnection = 0x04;
inline constexpr uint32_t kFeatureClientId = 0x08;
inline constexpr uint32_t kFeatureConfidentialChannels = 0x10;
inline constexpr uint32_t kFeaturePauseResume = 0x20;
inline constexpr uint32_t kFeatureServerMonitorPages = 0x40;
inline constexpr uint32_t kFeatureGpaPinning = 0x80;

// Status words of results.
inline constexpr uint32_t kStatusSuccess = 0;
inline constexpr uint32_t kStatusFailure = 0x8000FFFF;
inline constexpr uint32_t kStatusConnectionRefused = 0xC0000236;

// VersionResponseMessage::connection_state.
inline constexpr uint8_t kConnectionStateSuccess = 0;
inline constexpr uint8_t kConnectionStateLowResources = 1;
inline constexpr uint8_t kConnectionStateFailure = 2;

// OfferChannelMessage.
inline constexpr uint8_t kMonitorIdNone = 0xFF;
inline constexpr uint16_t kOfferDedicatedInterrupt = 1;

// Target processor of an open that asks for no host->guest interrupts.
inline constexpr uint32_t kNoInterruptVp = 0xFFFFFFFF;

// Range data that fits behind GpadlHeaderMessage and GpadlBodyMessage.
inline constexpr size_t kGpadlHeaderWordsMax = 27;
inline constexpr size_t kGpadlBodyWordsMax = 28;

struct MessageHeader {
  boost::endian::little_uint32_buf_t type;  // MessageType
  boost::endian::little_uint32_buf_t padding;
};
static_assert(sizeof(MessageHeader) == 8 && alignof(MessageHeader) == 1);
static_assert(offsetof(MessageHeader, type) == 0);
static_assert(offsetof(MessageHeader, padding) == 4);

static_assert(sizeof(Guid) == 16 && alignof(Guid) == 1);

// RequestOffers, AllOffersDelivered, Unload, UnloadComplete, Pause,
// PauseResponse, Resume.
struct HeaderOnlyMessage {
  MessageHeader header;
};
static_assert(sizeof(HeaderOnlyMessage) == 8 && alignof(HeaderOnlyMessage) == 1);

// RescindChannelOffer, CloseChannel, RelIdReleased,
// CloseReservedChannelResponse.
struct ChannelIdMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
};
static_assert(sizeof(ChannelIdMessage) == 12 && alignof(ChannelIdMessage) == 1);
static_assert(offsetof(ChannelIdMessage, channel_id) == 8);

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

struct GpadlTeardownMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t gpadl_id;
};
static_assert(sizeof(GpadlTeardownMessage) == 16 && alignof(GpadlTeardownMessage) == 1);
static_assert(offsetof(GpadlTeardownMessage, channel_id) == 8);
static_assert(offsetof(GpadlTeardownMessage, gpadl_id) == 12);

// Names no channel.
struct GpadlTorndownMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t gpadl_id;
};
static_assert(sizeof(GpadlTorndownMessage) == 12 && alignof(GpadlTorndownMessage) == 1);
static_assert(offsetof(GpadlTorndownMessage, gpadl_id) == 8);

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

struct ModifyChannelMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t target_vp;
};
static_assert(sizeof(ModifyChannelMessage) == 16 && alignof(ModifyChannelMessage) == 1);
static_assert(offsetof(ModifyChannelMessage, channel_id) == 8);
static_assert(offsetof(ModifyChannelMessage, target_vp) == 12);

struct ModifyChannelResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t channel_id;
  boost::endian::little_uint32_buf_t status;
};
static_assert(sizeof(ModifyChannelResponseMessage) == 16 &&
              alignof(ModifyChannelResponseMessage) == 1);
static_assert(offsetof(ModifyChannelResponseMessage, channel_id) == 8);
static_assert(offsetof(ModifyChannelResponseMessage, status) == 12);

struct ModifyConnectionMessage {
  MessageHeader header;
  boost::endian::little_uint64_buf_t parent_to_child_monitor_page_gpa;
  boost::endian::little_uint64_buf_t child_to_parent_monitor_page_gpa;
};
static_assert(sizeof(ModifyConnectionMessage) == 24 && alignof(ModifyConnectionMessage) == 1);
static_assert(offsetof(ModifyConnectionMessage, parent_to_child_monitor_page_gpa) == 8);
static_assert(offsetof(ModifyConnectionMessage, child_to_parent_monitor_page_gpa) == 16);

struct ModifyConnectionResponseMessage {
  MessageHeader header;
  uint8_t connection_state;
};
static_assert(sizeof(ModifyConnectionResponseMessage) == 9 &&
              alignof(ModifyConnectionResponseMessage) == 1);
static_assert(offsetof(ModifyConnectionResponseMessage, connection_state) == 8);

}  // namespace vmbfs::hyperv
