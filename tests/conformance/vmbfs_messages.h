// Packets, pipe messages and vmbfs messages as bytes.
//
// Source: shared/specs/vmbus.md sections 4.2, 5 and 6, shared/specs/vmbfs.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tests/conformance/bytes.h"

namespace vmbfs::conformance {

inline constexpr uint32_t kPipeData = 1;
inline constexpr uint32_t kPipeSetUp = 3;
inline constexpr uint32_t kPipeTearDown = 4;

inline constexpr uint32_t kVersionWin10 = 0x00010000;
inline constexpr uint32_t kReadBytesMax = 12276;
inline constexpr size_t kVmbfsBytesMax = 12288;

inline constexpr uint32_t kSuccess = 0;
inline constexpr uint32_t kNotFound = 1;
inline constexpr uint32_t kEndOfFile = 2;
inline constexpr uint32_t kError = 3;

inline constexpr std::u16string_view kHive = u"imc.hiv";

// An in-band packet without its trailer, padded to 8 bytes.
Bytes Packet(ByteView payload);
// A pipe message in its packet; the payload may be longer than it needs.
Bytes PipeMessage(uint32_t type, ByteView data, size_t payload_bytes = 0);

Bytes PathBytes(std::u16string_view path);
Bytes VersionRequest(uint32_t version = kVersionWin10);
Bytes InfoRequest(std::u16string_view path);
Bytes ReadRequest(uint32_t count, uint64_t offset, std::u16string_view path = kHive);
struct RdmaFields {
  uint32_t handle = 1;
  uint32_t count = 0;
  uint64_t offset = 0;
  uint64_t token_offset = 0;
};
Bytes RdmaRequest(const RdmaFields& fields, std::u16string_view path = kHive);
// SETUP's data for one range.
Bytes SetUpGpaDirect(uint32_t handle, bool writable, uint32_t byte_count, uint32_t byte_offset,
                     std::span<const uint64_t> page_frames);

}  // namespace vmbfs::conformance
