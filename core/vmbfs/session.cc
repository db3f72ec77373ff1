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
  return Response::FileInfo(FileStatus::kSuccess, 0, file->size_bytes());
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

Answer Session::AnswerTo(const ReadFileRdmaRequest&) {
  CountRequest(MessageType::kReadFileRdmaRequest);
  if (!ready_) return Refuse(MessageType::kReadFileRdmaRequest, kNoVersion);
  return Refuse(MessageType::kReadFileRdmaRequest, "RDMA reads are off");
}

Answer Session::AnswerTo(const BadRequest& request) {
  CountRequest(request.type);
  return Refuse(request.type, request.reason);
}

Answer Session::Refuse(MessageType type, std::string_view reason) {
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
