#include "grpc/blobs/upload.h"

#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/convert/status.h"

namespace vmbfs::rpc {
namespace {

// Keeps an error's code and sentence and names its kind for machines.
absl::Status WithReason(const absl::Status& status, std::string_view reason) {
  return ReasonOf(status).empty() ? HostError(status.code(), reason, std::string(status.message()))
                                  : status;
}

}  // namespace

absl::Status Upload::Take(const v1::UploadBlobRequest& message) {
  switch (message.content_case()) {
    case v1::UploadBlobRequest::kOptions:
      return Begin(message.options());
    case v1::UploadBlobRequest::kChunk:
      return Write(message.chunk());
    case v1::UploadBlobRequest::CONTENT_NOT_SET:
      break;
  }
  return FieldError("content", "UPLOAD_MESSAGE_INVALID",
                    "the message has neither options nor a chunk");
}

absl::Status Upload::Begin(const v1::UploadBlobRequest::Options& options) {
  if (writer_ != nullptr) {
    return FieldError("options", "UPLOAD_MESSAGE_INVALID",
                      "options came twice: give them in the first message only");
  }
  if (!options.has_size_bytes() || options.size_bytes() < 0) {
    return FieldError("options.size_bytes", "UPLOAD_SIZE_MISSING",
                      "options.size_bytes is missing or negative: give the content's size");
  }
  if (options.has_expected_sha256() && !IsSha256Hex(options.expected_sha256())) {
    return FieldError("options.expected_sha256", "DIGEST_INVALID",
                      "options.expected_sha256 is not 64 lower-case hexadecimal digits");
  }
  announced_bytes_ = static_cast<uint64_t>(options.size_bytes());
  if (announced_bytes_ > host_.upload_bytes_max()) {
    return HostError(absl::StatusCode::kResourceExhausted, "BLOB_TOO_LARGE",
                     absl::StrCat("the content has ", announced_bytes_,
                                  " bytes: no device takes more than ", host_.upload_bytes_max()));
  }
  if (options.has_expected_sha256()) expected_sha256_ = options.expected_sha256();
  absl::StatusOr<std::unique_ptr<BlobWriter>> writer = host_.blobs().Begin(announced_bytes_);
  if (!writer.ok()) return WithReason(writer.status(), "BLOB_NOT_STORED");
  writer_ = *std::move(writer);
  return absl::OkStatus();
}

absl::Status Upload::Write(const std::string& chunk) {
  if (writer_ == nullptr) {
    return FieldError("content", "UPLOAD_MESSAGE_INVALID",
                      "a chunk came first: give options in the first message");
  }
  if (chunk.empty() || chunk.size() > kChunkBytesMax) {
    return FieldError(
        "chunk", "UPLOAD_CHUNK_INVALID",
        absl::StrCat("the chunk has ", chunk.size(), " bytes: give 1 to ", kChunkBytesMax));
  }
  if (chunk.size() > announced_bytes_ - received_bytes_) {
    return FieldError("chunk", "UPLOAD_SIZE_MISMATCH",
                      absl::StrCat("more content came than the ", announced_bytes_,
                                   " bytes that options.size_bytes announced"));
  }
  received_bytes_ += chunk.size();
  const absl::Status written = writer_->Write(std::as_bytes(std::span(chunk)));
  return written.ok() ? written : WithReason(written, "BLOB_NOT_STORED");
}

absl::StatusOr<BlobInfo> Upload::Finish() {
  if (writer_ == nullptr) {
    return FieldError("content", "UPLOAD_MESSAGE_INVALID",
                      "the stream ended before options: give them in the first message");
  }
  if (received_bytes_ != announced_bytes_) {
    return FieldError("options.size_bytes", "UPLOAD_SIZE_MISMATCH",
                      absl::StrCat("the stream ended after ", received_bytes_, " of ",
                                   announced_bytes_, " bytes: upload it again"));
  }
  absl::StatusOr<BlobInfo> blob = writer_->Finish(expected_sha256_);
  if (absl::IsInvalidArgument(blob.status())) {
    return AboutField(WithReason(blob.status(), "DIGEST_MISMATCH"), "options.expected_sha256");
  }
  if (!blob.ok()) return WithReason(blob.status(), "BLOB_NOT_STORED");
  return blob;
}

}  // namespace vmbfs::rpc
