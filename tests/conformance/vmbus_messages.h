// The bytes of channel messages as a guest posts them, right or wrong on
// purpose, and the sizes of what the host sends.
//
// Source: shared/specs/vmbus.md section 2, by its offsets.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/conformance/bytes.h"

namespace vmbfs::conformance {

enum MessageType : uint32_t {
  kOfferChannel = 1,
  kRescind = 2,
  kRequestOffers = 3,
  kAllOffersDelivered = 4,
  kOpenChannel = 5,
  kOpenResult = 6,
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
  kOpenReserved = 18,
  kCloseReserved = 19,
  kCloseReservedResponse = 20,
  kTlConnectRequest = 21,
  kModifyChannel = 22,
  kTlConnectResult = 23,
  kModifyChannelResponse = 24,
  kModifyConnection = 25,
  kModifyConnectionResponse = 26,
  kPause = 27,
  kPauseResponse = 28,
  kResume = 29,
};

inline constexpr size_t kMessageBytes = 240;  // the most that a message has
inline constexpr uint32_t kVersion2_4 = 0x00020004;
inline constexpr uint32_t kVersion3_0 = 0x00030000;
inline constexpr uint32_t kVersion4_0 = 0x00040000;
inline constexpr uint32_t kVersion4_1 = 0x00040001;
inline constexpr uint32_t kVersion5_0 = 0x00050000;
inline constexpr uint32_t kVersion5_1 = 0x00050001;
inline constexpr uint32_t kVersion5_2 = 0x00050002;
inline constexpr uint32_t kVersion5_3 = 0x00050003;
inline constexpr uint32_t kVersion6_0 = 0x00060000;
inline constexpr uint32_t kVersions[] = {kVersion2_4, kVersion3_0, kVersion4_0,
                                         kVersion4_1, kVersion5_0, kVersion5_1,
                                         kVersion5_2, kVersion5_3, kVersion6_0};

inline constexpr uint32_t kFeatureGuestSignals = 0x01;
inline constexpr uint32_t kFeatureModifyConnection = 0x04;
inline constexpr uint32_t kFeatureClientId = 0x08;
inline constexpr uint32_t kFeaturePauseResume = 0x20;
inline constexpr uint32_t kFeatureServerMonitorPages = 0x40;

inline constexpr uint32_t kStandardConnection = 1;
inline constexpr uint32_t kMultiClientConnection = 4;
inline constexpr uint32_t kVmbusSint = 2;
inline constexpr uint32_t kNoInterruptVp = 0xFFFFFFFF;
inline constexpr uint32_t kFailure = 0x8000FFFF;

// Whether the host may send a message of this type with this many bytes.
bool IsHostMessageSize(uint32_t type, size_t bytes);
// The types that only a host sends.
std::vector<uint32_t> HostMessageTypes();

// The header and zeros. REQUIRES: bytes >= 8.
Bytes Message(uint32_t type, size_t bytes = 8);
// A message whose fields from offset 8 on are u32.
Bytes MessageWith(uint32_t type, const std::vector<uint32_t>& fields);

struct ContactFields {
  uint32_t version = kVersion6_0;
  uint32_t target_vp = 0;
  uint8_t sint = kVmbusSint;
  uint8_t vtl = 0;
  uint32_t features = 0;
  uint64_t parent_to_child_gpa = 0;
  uint64_t child_to_parent_gpa = 0;
  size_t bytes = 40;  // 56 with a client id
};
// Below 5.0 the eight bytes at 16 are an interrupt page: none here.
Bytes Contact(const ContactFields& fields);

// One range as the words of a list.
std::vector<uint64_t> RangeWords(uint32_t byte_count, uint32_t byte_offset,
                                 const std::vector<uint64_t>& page_frames);

struct GpadlFields {
  uint32_t channel_id = 0;
  uint32_t gpadl_id = 0;
  std::vector<uint64_t> words{};
  uint32_t range_count = 1;
  std::optional<uint32_t> range_bytes{};  // in place of the words' own size
  bool padded = false;                    // every message of 240 bytes
  std::byte padding{};                    // what fills them
  std::vector<uint32_t> body_numbers{};   // else 0 if padded, 1 to k if not
};
// A header, and the bodies that its words need.
std::vector<Bytes> Gpadl(const GpadlFields& fields);

struct OpenFields {
  uint32_t channel_id = 0;
  uint32_t open_id = 0;
  uint32_t gpadl_id = 0;
  uint32_t target_vp = 0;
  uint32_t downstream_page = 0;
  size_t bytes = 156;
  std::byte tail{};  // bytes 148 to 155, unless the next two are used
  std::optional<uint32_t> connection_id{};
  uint16_t event_flag = 0;
};
Bytes Open(const OpenFields& fields);

}  // namespace vmbfs::conformance
