// What all VMBus channel messages share: the header, types, versions, features,
// status words and numbers with a meaning of their own.
// Source: shared/specs/vmbus.md section 2.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

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
// A connection id has 24 bits; 0 is none.
inline constexpr uint32_t kConnectionIdMax = 0x00FFFFFF;

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
inline constexpr uint8_t kMonitorIds = 128;  // 0 and up
inline constexpr uint8_t kOfferMonitorAllocated = 1;
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

}  // namespace vmbfs::hyperv
