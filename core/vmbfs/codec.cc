#include "core/vmbfs/codec.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

// The fixed part of `message`, copied out.
// REQUIRES: the message is long enough.
template <typename Message>
Message FixedPart(std::span<const std::byte> message) {
  Message fixed;
  std::memcpy(&fixed, message.data(), sizeof(fixed));
  return fixed;
}

BadRequest TooShort(MessageType type, size_t bytes, size_t bytes_min) {
  return {type, absl::StrCat("message is ", bytes, " bytes; at least ", bytes_min, " are needed")};
}

Request ParseVersion(std::span<const std::byte> message) {
  using Message = VersionRequestMessage;
  if (message.size() < sizeof(Message)) {
    return TooShort(MessageType::kVersionRequest, message.size(), sizeof(Message));
  }
  return VersionRequest{FixedPart<Message>(message).version.value()};
}

Request ParseGetFileInfo(std::span<const std::byte> message) {
  using Message = GetFileInfoRequestMessage;
  absl::StatusOr<GuestPath> path = GuestPath::Parse(message.subspan(sizeof(Message)));
  if (!path.ok()) {
    return BadRequest{MessageType::kGetFileInfoRequest, std::string(path.status().message())};
  }
  return GetFileInfoRequest{*std::move(path)};
}

Request ParseReadFile(std::span<const std::byte> message) {
  using Message = ReadFileRequestMessage;
  constexpr MessageType kType = MessageType::kReadFileRequest;
  if (message.size() < sizeof(Message)) return TooShort(kType, message.size(), sizeof(Message));
  absl::StatusOr<GuestPath> path = GuestPath::Parse(message.subspan(sizeof(Message)));
  if (!path.ok()) return BadRequest{kType, std::string(path.status().message())};
  const Message fixed = FixedPart<Message>(message);
  const uint32_t byte_count = fixed.byte_count.value();
  if (byte_count > kReadBytesMax) {
    return BadRequest{kType, absl::StrCat(byte_count, " bytes asked for; at most ", kReadBytesMax,
                                          " fit into a response")};
  }
  return ReadFileRequest{byte_count, fixed.offset.value(), *std::move(path)};
}

Request ParseReadFileRdma(std::span<const std::byte> message) {
  using Message = ReadFileRdmaRequestMessage;
  constexpr MessageType kType = MessageType::kReadFileRdmaRequest;
  if (message.size() < sizeof(Message)) return TooShort(kType, message.size(), sizeof(Message));
  absl::StatusOr<GuestPath> path = GuestPath::Parse(message.subspan(sizeof(Message)));
  if (!path.ok()) return BadRequest{kType, std::string(path.status().message())};
  const Message fixed = FixedPart<Message>(message);
  return ReadFileRdmaRequest{fixed.handle.value(), fixed.byte_count.value(),
                             fixed.file_offset.value(), fixed.token_offset.value(),
                             *std::move(path)};
}

MessageHeader HeaderOf(MessageType type) {
  MessageHeader header{};
  header.type = static_cast<uint32_t>(type);
  return header;
}

}  // namespace

absl::StatusOr<Request> ParseRequest(std::span<const std::byte> message) {
  if (message.size() < sizeof(MessageHeader)) {
    return absl::InvalidArgumentError(absl::StrCat("vmbfs message is ", message.size(),
                                                   " bytes; at least ", sizeof(MessageHeader),
                                                   " are needed"));
  }
  if (message.size() > kMessageBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "vmbfs message is ", message.size(), " bytes; at most ", kMessageBytesMax, " are allowed"));
  }
  const uint32_t type = FixedPart<MessageHeader>(message).type.value();
  switch (static_cast<MessageType>(type)) {
    case MessageType::kVersionRequest:
      return ParseVersion(message);
    case MessageType::kGetFileInfoRequest:
      return ParseGetFileInfo(message);
    case MessageType::kReadFileRequest:
      return ParseReadFile(message);
    case MessageType::kReadFileRdmaRequest:
      return ParseReadFileRdma(message);
    case MessageType::kVersionResponse:
    case MessageType::kGetFileInfoResponse:
    case MessageType::kReadFileResponse:
    case MessageType::kReadFileRdmaResponse:
      return absl::InvalidArgumentError(
          absl::StrCat("vmbfs message of type ", type, " goes from host to guest only"));
  }
  return absl::InvalidArgumentError(absl::StrCat("vmbfs message of unknown type ", type));
}

template <typename Message>
Response::Response(const Message& message) : size_bytes_(sizeof(message)) {
  static_assert(sizeof(message) <= sizeof(storage_));
  std::memcpy(storage_.data(), &message, sizeof(message));
}

Response Response::Version(VersionStatus status) {
  VersionResponseMessage message{};
  message.header = HeaderOf(MessageType::kVersionResponse);
  message.status = static_cast<uint32_t>(status);
  return Response(message);
}

Response Response::FileInfo(FileStatus status, uint32_t flags, uint64_t size_bytes) {
  GetFileInfoResponseMessage message{};
  message.header = HeaderOf(MessageType::kGetFileInfoResponse);
  message.status = static_cast<uint32_t>(status);
  message.flags = flags;
  message.size_bytes = size_bytes;
  return Response(message);
}

Response Response::ReadFile(FileStatus status) {
  ReadFileResponseMessage message{};
  message.header = HeaderOf(MessageType::kReadFileResponse);
  message.status = static_cast<uint32_t>(status);
  return Response(message);
}

Response Response::ReadFileRdma(FileStatus status, uint32_t byte_count) {
  ReadFileRdmaResponseMessage message{};
  message.header = HeaderOf(MessageType::kReadFileRdmaResponse);
  message.status = static_cast<uint32_t>(status);
  message.byte_count = byte_count;
  return Response(message);
}

}  // namespace vmbfs
