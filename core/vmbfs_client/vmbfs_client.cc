#include "core/vmbfs_client/vmbfs_client.h"

#include <algorithm>
#include <array>
#include <boost/endian/buffers.hpp>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

using Buffer = std::array<std::byte, kMessageBytesMax>;

template <typename Message>
void SetHeader(Message& message, MessageType type) {
  message.header.type = static_cast<uint32_t>(type);
  message.header.reserved = 0;
}

// The fixed part and the path behind it.
template <typename Message>
absl::StatusOr<std::vector<std::byte>> WithPath(const Message& fixed, std::u16string_view path) {
  if (path.size() > (kMessageBytesMax - sizeof(fixed)) / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("a path of ", path.size(), " units does not fit a message"));
  }
  std::vector<std::byte> message(sizeof(fixed) + path.size() * 2);
  std::memcpy(message.data(), &fixed, sizeof(fixed));
  for (size_t index = 0; index < path.size(); ++index) {
    const boost::endian::little_uint16_buf_t unit(path[index]);
    std::memcpy(&message[sizeof(fixed) + index * 2], &unit, sizeof(unit));
  }
  return message;
}

// The fixed part of an answer of this type and at least its size.
template <typename Message>
absl::StatusOr<Message> Parse(std::span<const std::byte> answer, MessageType type) {
  Message message;
  if (answer.size() < sizeof(message)) {
    return absl::DataLossError(absl::StrCat("answer of ", answer.size(), " bytes; type ",
                                            static_cast<uint32_t>(type), " has ", sizeof(message)));
  }
  std::memcpy(&message, answer.data(), sizeof(message));
  if (message.header.type.value() != static_cast<uint32_t>(type)) {
    return absl::DataLossError(absl::StrCat("answer of type ", message.header.type.value(), "; ",
                                            static_cast<uint32_t>(type), " is expected"));
  }
  return message;
}

template <typename Message>
absl::StatusOr<Message> ParseExact(std::span<const std::byte> answer, MessageType type) {
  if (answer.size() > sizeof(Message)) {
    return absl::DataLossError(absl::StrCat("answer of ", answer.size(), " bytes; type ",
                                            static_cast<uint32_t>(type), " has exactly ",
                                            sizeof(Message)));
  }
  return Parse<Message>(answer, type);
}

absl::StatusOr<FileStatus> ParseStatus(uint32_t status) {
  if (status > static_cast<uint32_t>(FileStatus::kError)) {
    return absl::DataLossError(absl::StrCat("answer with unknown status ", status));
  }
  return static_cast<FileStatus>(status);
}

}  // namespace

absl::StatusOr<bool> VmbfsClient::Negotiate(uint32_t version) {
  VersionRequestMessage request;
  SetHeader(request, MessageType::kVersionRequest);
  request.version = version;
  Buffer buffer;
  absl::StatusOr<std::span<std::byte>> answer =
      channel_.Exchange(std::as_bytes(std::span(&request, 1)), buffer);
  if (!answer.ok()) return answer.status();
  absl::StatusOr<VersionResponseMessage> response =
      ParseExact<VersionResponseMessage>(*answer, MessageType::kVersionResponse);
  if (!response.ok()) return response.status();
  return response->status.value() == static_cast<uint32_t>(VersionStatus::kSupported);
}

absl::StatusOr<FileInfoAnswer> VmbfsClient::GetFileInfo(std::u16string_view path) {
  GetFileInfoRequestMessage fixed;
  SetHeader(fixed, MessageType::kGetFileInfoRequest);
  absl::StatusOr<std::vector<std::byte>> request = WithPath(fixed, path);
  if (!request.ok()) return request.status();
  Buffer buffer;
  absl::StatusOr<std::span<std::byte>> answer = channel_.Exchange(*request, buffer);
  if (!answer.ok()) return answer.status();
  absl::StatusOr<GetFileInfoResponseMessage> response =
      ParseExact<GetFileInfoResponseMessage>(*answer, MessageType::kGetFileInfoResponse);
  if (!response.ok()) return response.status();
  absl::StatusOr<FileStatus> status = ParseStatus(response->status.value());
  if (!status.ok()) return status.status();
  const uint32_t flags = response->flags.value();
  return FileInfoAnswer{.status = *status,
                        .directory = (flags & kFileInfoFlagDirectory) != 0,
                        .rdma = (flags & kFileInfoFlagRdma) != 0,
                        .size_bytes = response->size_bytes.value()};
}

absl::StatusOr<ReadAnswer> VmbfsClient::Read(std::u16string_view path, uint64_t offset,
                                             uint32_t bytes) {
  ReadFileRequestMessage fixed;
  SetHeader(fixed, MessageType::kReadFileRequest);
  fixed.byte_count = bytes;
  fixed.offset = offset;
  absl::StatusOr<std::vector<std::byte>> request = WithPath(fixed, path);
  if (!request.ok()) return request.status();
  Buffer buffer;
  absl::StatusOr<std::span<std::byte>> answer = channel_.Exchange(*request, buffer);
  if (!answer.ok()) return answer.status();
  absl::StatusOr<ReadFileResponseMessage> response =
      Parse<ReadFileResponseMessage>(*answer, MessageType::kReadFileResponse);
  if (!response.ok()) return response.status();
  absl::StatusOr<FileStatus> status = ParseStatus(response->status.value());
  if (!status.ok()) return status.status();
  const std::span<std::byte> data = answer->subspan(sizeof(ReadFileResponseMessage));
  if (data.size() > bytes) {
    return absl::DataLossError(
        absl::StrCat("read of ", bytes, " bytes answered with ", data.size()));
  }
  return ReadAnswer{.status = *status, .data = {data.begin(), data.end()}};
}

absl::StatusOr<std::vector<std::byte>> VmbfsClient::ReadFile(std::u16string_view path) {
  absl::StatusOr<FileInfoAnswer> info = GetFileInfo(path);
  if (!info.ok()) return info.status();
  if (info->status == FileStatus::kNotFound) return absl::NotFoundError("not found");
  if (info->status != FileStatus::kSuccess) {
    return absl::InternalError(
        absl::StrCat("file info answered with status ", static_cast<uint32_t>(info->status)));
  }
  if (info->directory) return absl::FailedPreconditionError("is a directory");
  if (info->size_bytes > kReadFileBytesMax) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "file of ", info->size_bytes, " bytes; at most ", kReadFileBytesMax, " are read"));
  }
  std::vector<std::byte> data;
  while (data.size() < info->size_bytes) {
    const uint64_t left = info->size_bytes - data.size();
    absl::StatusOr<ReadAnswer> read =
        Read(path, data.size(), static_cast<uint32_t>(std::min<uint64_t>(left, kReadBytesMax)));
    if (!read.ok()) return read.status();
    if (read->status == FileStatus::kNotFound) return absl::NotFoundError("not found any more");
    if (read->status == FileStatus::kError) {
      return absl::InternalError(absl::StrCat("read at ", data.size(), " answered with status 3"));
    }
    if (read->status == FileStatus::kEndOfFile || read->data.empty()) {
      return absl::DataLossError(
          absl::StrCat("the file ends at ", data.size(), " of ", info->size_bytes, " bytes"));
    }
    data.insert(data.end(), read->data.begin(), read->data.end());
  }
  return data;
}

absl::StatusOr<std::vector<std::byte>> VmbfsClient::Raw(std::span<const std::byte> message) {
  Buffer buffer;
  absl::StatusOr<std::span<std::byte>> answer = channel_.Exchange(message, buffer);
  if (!answer.ok()) return answer.status();
  return std::vector<std::byte>(answer->begin(), answer->end());
}

}  // namespace vmbfs
