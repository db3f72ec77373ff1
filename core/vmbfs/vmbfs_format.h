// The bytes of the vmbfs protocol and nothing else: message types, limits, and
// one structure for the fixed part of each message.
//
// Format: shared/specs/vmbfs.md. All integers are little-endian. Every field
// has alignment 1, so the 64-bit offset of a read lies where the protocol puts
// it: in the middle of a word.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs {

enum class MessageType : uint32_t {
  kVersionRequest = 1,
  kVersionResponse = 2,
  kGetFileInfoRequest = 3,
  kGetFileInfoResponse = 4,
  kReadFileRequest = 5,
  kReadFileResponse = 6,
  kReadFileRdmaRequest = 7,
  kReadFileRdmaResponse = 8,
};

enum class VersionStatus : uint32_t { kSupported = 0, kUnsupported = 1 };
enum class FileStatus : uint32_t { kSuccess = 0, kNotFound = 1, kEndOfFile = 2, kError = 3 };

// The one version so far, "WIN10": major in the high 16 bits.
inline constexpr uint32_t kVersionWin10 = 0x00010000;

inline constexpr uint32_t kFileInfoFlagDirectory = 1u << 0;
inline constexpr uint32_t kFileInfoFlagRdma = 1u << 1;

// Header included, in both directions.
inline constexpr size_t kMessageBytesMax = 12288;

struct MessageHeader {
  boost::endian::little_uint32_buf_t type;
  boost::endian::little_uint32_buf_t reserved;  // sent as 0, not checked
};
static_assert(sizeof(MessageHeader) == 8 && alignof(MessageHeader) == 1);
static_assert(offsetof(MessageHeader, type) == 0);
static_assert(offsetof(MessageHeader, reserved) == 4);

struct VersionRequestMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t version;
};
static_assert(sizeof(VersionRequestMessage) == 12 && alignof(VersionRequestMessage) == 1);
static_assert(offsetof(VersionRequestMessage, version) == 8);

struct VersionResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t status;  // VersionStatus
};
static_assert(sizeof(VersionResponseMessage) == 12 && alignof(VersionResponseMessage) == 1);
static_assert(offsetof(VersionResponseMessage, status) == 8);

// The path, UTF-16LE without a terminator, is the rest of the message.
struct GetFileInfoRequestMessage {
  MessageHeader header;
};
static_assert(sizeof(GetFileInfoRequestMessage) == 8);

struct GetFileInfoResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t status;  // FileStatus
  boost::endian::little_uint32_buf_t flags;
  boost::endian::little_uint64_buf_t size_bytes;
};
static_assert(sizeof(GetFileInfoResponseMessage) == 24 && alignof(GetFileInfoResponseMessage) == 1);
static_assert(offsetof(GetFileInfoResponseMessage, status) == 8);
static_assert(offsetof(GetFileInfoResponseMessage, flags) == 12);
static_assert(offsetof(GetFileInfoResponseMessage, size_bytes) == 16);

// The path is the rest of the message.
struct ReadFileRequestMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t byte_count;
  boost::endian::little_uint64_buf_t offset;
};
static_assert(sizeof(ReadFileRequestMessage) == 20 && alignof(ReadFileRequestMessage) == 1);
static_assert(offsetof(ReadFileRequestMessage, byte_count) == 8);
static_assert(offsetof(ReadFileRequestMessage, offset) == 12);

// The data is the rest of the message.
struct ReadFileResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t status;  // FileStatus
};
static_assert(sizeof(ReadFileResponseMessage) == 12 && alignof(ReadFileResponseMessage) == 1);
static_assert(offsetof(ReadFileResponseMessage, status) == 8);

// The path is the rest of the message.
struct ReadFileRdmaRequestMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t handle;
  boost::endian::little_uint32_buf_t byte_count;
  boost::endian::little_uint64_buf_t file_offset;
  boost::endian::little_uint64_buf_t token_offset;
};
static_assert(sizeof(ReadFileRdmaRequestMessage) == 32 && alignof(ReadFileRdmaRequestMessage) == 1);
static_assert(offsetof(ReadFileRdmaRequestMessage, handle) == 8);
static_assert(offsetof(ReadFileRdmaRequestMessage, byte_count) == 12);
static_assert(offsetof(ReadFileRdmaRequestMessage, file_offset) == 16);
static_assert(offsetof(ReadFileRdmaRequestMessage, token_offset) == 24);

struct ReadFileRdmaResponseMessage {
  MessageHeader header;
  boost::endian::little_uint32_buf_t status;  // FileStatus
  boost::endian::little_uint32_buf_t byte_count;
};
static_assert(sizeof(ReadFileRdmaResponseMessage) == 16 &&
              alignof(ReadFileRdmaResponseMessage) == 1);
static_assert(offsetof(ReadFileRdmaResponseMessage, status) == 8);
static_assert(offsetof(ReadFileRdmaResponseMessage, byte_count) == 12);

// The largest payload of a read response.
inline constexpr size_t kReadBytesMax = kMessageBytesMax - sizeof(ReadFileResponseMessage);
static_assert(kReadBytesMax == 12276);

}  // namespace vmbfs
