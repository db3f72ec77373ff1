#include "core/vmbfs_client/vmbfs_client.h"

#include <algorithm>
#include <array>
#include <boost/endian/buffers.hpp>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs {
namespace {

using Buffer = std::array<std::byte, kMessageBytesMax>;

// The firmware registers one buffer at a time, always with this handle.
constexpr uint32_t kRdmaHandle = 1;

// One writable range of `bytes` from the start of the buffer's pages.
std::vector<std::byte> SetUp(const hyperv::GuestPages& buffer, uint32_t bytes) {
  const size_t pages = (bytes + hyperv::kPageBytes - 1) / hyperv::kPageBytes;
  hyperv::GpaDirectSetUp head;
  head.handle = kRdmaHandle;
  head.writable = 1;
  head.range_count = 1;
  const std::array<boost::endian::little_uint32_buf_t, 2> range = {
      boost::endian::little_uint32_buf_t(bytes), boost::endian::little_uint32_buf_t(0)};
  std::vector<std::byte> data(sizeof(head) + sizeof(range) + pages * sizeof(uint64_t));
  std::memcpy(data.data(), &head, sizeof(head));
  std::memcpy(&data[sizeof(head)], range.data(), sizeof(range));
  for (size_t page = 0; page < pages; ++page) {
    const boost::endian::little_uint64_buf_t frame(buffer.page_frames()[page]);
    std::memcpy(&data[sizeof(head) + sizeof(range) + page * sizeof(frame)], &frame, sizeof(frame));
  }
  return data;
}

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

absl::StatusOr<RdmaReadAnswer> VmbfsClient::ReadRdma(std::u16string_view path, uint64_t offset,
                                                     uint32_t bytes,
                                                     const hyperv::GuestPages& buffer) {
  ReadFileRdmaRequestMessage fixed;
  SetHeader(fixed, MessageType::kReadFileRdmaRequest);
  fixed.handle = kRdmaHandle;
  fixed.byte_count = bytes;
  fixed.file_offset = offset;
  fixed.token_offset = 0;
  absl::StatusOr<std::vector<std::byte>> request = WithPath(fixed, path);
  if (!request.ok()) return request.status();
  if (absl::Status sent =
          channel_.SendDeferred(hyperv::PipeMessageType::kSetUpGpaDirect, SetUp(buffer, bytes));
      !sent.ok()) {
    return sent;
  }
  Buffer answer_buffer;
  const absl::StatusOr<std::span<std::byte>> answer = channel_.Exchange(*request, answer_buffer);
  if (!answer.ok()) return answer.status();
  const boost::endian::little_uint32_buf_t handle(kRdmaHandle);
  if (absl::Status sent = channel_.SendDeferred(hyperv::PipeMessageType::kTearDownGpaDirect,
                                                std::as_bytes(std::span(&handle, 1)));
      !sent.ok()) {
    return sent;
  }
  const auto response =
      ParseExact<ReadFileRdmaResponseMessage>(*answer, MessageType::kReadFileRdmaResponse);
  if (!response.ok()) return response.status();
  const absl::StatusOr<FileStatus> status = ParseStatus(response->status.value());
  if (!status.ok()) return status.status();
  const uint32_t byte_count = response->byte_count.value();
  if (byte_count > bytes) {
    return absl::DataLossError(
        absl::StrCat("RDMA read of ", bytes, " bytes answered with ", byte_count));
  }
  return RdmaReadAnswer{.status = *status, .byte_count = byte_count};
}

absl::StatusOr<ReadAnswer> VmbfsClient::ReadNext(std::u16string_view path, uint64_t offset,
                                                 uint64_t left, bool rdma) {
  if (!rdma) {
    return Read(path, offset, static_cast<uint32_t>(std::min<uint64_t>(left, kReadBytesMax)));
  }
  const uint64_t room_bytes = rdma_->page_frames().size() * hyperv::kPageBytes;
  const absl::StatusOr<RdmaReadAnswer> read = ReadRdma(
      path, offset, static_cast<uint32_t>(std::min<uint64_t>({left, kRdmaBytesMax, room_bytes})),
      *rdma_);
  if (!read.ok()) return read.status();
  ReadAnswer answer{.status = read->status, .data = {}};
  answer.data.reserve(read->byte_count);
  for (size_t page = 0; answer.data.size() < read->byte_count; ++page) {
    const size_t bytes =
        std::min<size_t>(hyperv::kPageBytes, read->byte_count - answer.data.size());
    const std::span<const std::byte> part = rdma_->Page(page).first(bytes);
    answer.data.insert(answer.data.end(), part.begin(), part.end());
  }
  return answer;
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
  const bool rdma = info->rdma && rdma_ != nullptr;
  std::vector<std::byte> data;
  while (data.size() < info->size_bytes) {
    const uint64_t left = info->size_bytes - data.size();
    absl::StatusOr<ReadAnswer> read = ReadNext(path, data.size(), left, rdma);
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
