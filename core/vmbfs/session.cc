#include "core/vmbfs/session.h"

#include <algorithm>
#include <string>

namespace vmbfs {
namespace {

constexpr std::string_view kNoVersion = "no version was agreed yet";

std::string_view NameOf(MessageType type) {
  switch (type) {
    case MessageType::kVersionRequest:
      return "version request";
    case MessageType::kGetFileInfoRequest:
      return "get file info";
    case MessageType::kReadFileRequest:
      return "read file";
    default:
      return "read file RDMA";
  }
}

// The response of the request's kind that says "broken".
Response ErrorResponse(MessageType type) {
  switch (type) {
    case MessageType::kVersionRequest:
      return Response::Version(VersionStatus::kUnsupported);
    case MessageType::kGetFileInfoRequest:
      return Response::FileInfo(FileStatus::kError, 0, 0);
    case MessageType::kReadFileRequest:
      return Response::ReadFile(FileStatus::kError);
    default:
      return Response::ReadFileRdma(FileStatus::kError, 0);
  }
}

}  // namespace

absl::StatusOr<Answer> Session::Handle(std::span<const std::byte> message) {
  const absl::StatusOr<Request> request = ParseRequest(message);
  if (!request.ok()) return request.status();
  return std::visit([this](const auto& known) { return AnswerTo(known); }, *request);
}

Answer Session::AnswerTo(const VersionRequest& request) {
  CountRequest(MessageType::kVersionRequest);
  if (request.version != kVersionWin10) return Response::Version(VersionStatus::kUnsupported);
  ready_ = true;
  return Response::Version(VersionStatus::kSupported);
}

Answer Session::AnswerTo(const GetFileInfoRequest& request) {
  CountRequest(MessageType::kGetFileInfoRequest);
  if (!ready_) return Refuse(MessageType::kGetFileInfoRequest, kNoVersion);
  const File* file = backing_->Find(request.path);
  if (file == nullptr) {
    ++status_.not_found;
    return Response::FileInfo(FileStatus::kNotFound, 0, 0);
  }
  if (file->is_directory())
    return Response::FileInfo(FileStatus::kSuccess, kFileInfoFlagDirectory, 0);
  const bool rdma = rdma_bytes_min_ != 0 && file->size_bytes() >= rdma_bytes_min_;
  return Response::FileInfo(FileStatus::kSuccess, rdma ? kFileInfoFlagRdma : 0, file->size_bytes());
}

Answer Session::AnswerTo(const ReadFileRequest& request) {
  CountRequest(MessageType::kReadFileRequest);
  if (!ready_) return Refuse(MessageType::kReadFileRequest, kNoVersion);
  const File* file = backing_->Find(request.path);
  if (file == nullptr) {
    ++status_.not_found;
    return Response::ReadFile(FileStatus::kNotFound);
  }
  if (file->is_directory()) return Refuse(MessageType::kReadFileRequest, "the path is a directory");
  if (request.byte_count == 0) return Response::ReadFile(FileStatus::kSuccess);
  if (request.offset >= file->size_bytes()) return Response::ReadFile(FileStatus::kEndOfFile);
  const uint64_t left_bytes = file->size_bytes() - request.offset;
  return FileRead{file, request.offset,
                  static_cast<size_t>(std::min<uint64_t>(request.byte_count, left_bytes))};
}

// A file below the size that they are offered for can be read so as well.
Answer Session::AnswerTo(const ReadFileRdmaRequest& request) {
  CountRequest(MessageType::kReadFileRdmaRequest);
  if (!ready_) return RefuseRdma(kNoVersion);
  if (rdma_bytes_min_ == 0) return RefuseRdma("RDMA reads are off");
  const File* file = backing_->Find(request.path);
  if (file == nullptr) {
    ++status_.not_found;
    return Response::ReadFileRdma(FileStatus::kNotFound, 0);
  }
  if (file->is_directory()) return RefuseRdma("the path is a directory");
  if (request.byte_count == 0) return Response::ReadFileRdma(FileStatus::kSuccess, 0);
  if (request.offset >= file->size_bytes()) {
    return Response::ReadFileRdma(FileStatus::kEndOfFile, 0);
  }
  const uint64_t left_bytes = file->size_bytes() - request.offset;
  return RdmaRead{
      .file = file,
      .offset = request.offset,
      .byte_count = static_cast<uint32_t>(std::min<uint64_t>(request.byte_count, left_bytes)),
      .requested_bytes = request.byte_count,
      .handle = request.handle,
      .token_offset = request.token_offset};
}

Response Session::RefuseRdma(std::string_view reason) {
  return Refuse(MessageType::kReadFileRdmaRequest, reason);
}

Answer Session::AnswerTo(const BadRequest& request) {
  CountRequest(request.type);
  return Refuse(request.type, request.reason);
}

Response Session::Refuse(MessageType type, std::string_view reason) {
  ++status_.bad_requests;
  status_.last_bad_request = std::string(NameOf(type)).append(": ").append(reason);
  return ErrorResponse(type);
}

void Session::CountRequest(MessageType type) {
  switch (type) {
    case MessageType::kVersionRequest:
      ++status_.version_requests;
      break;
    case MessageType::kGetFileInfoRequest:
      ++status_.info_requests;
      break;
    case MessageType::kReadFileRequest:
      ++status_.read_requests;
      break;
    default:
      ++status_.rdma_requests;
      break;
  }
}

}  // namespace vmbfs
