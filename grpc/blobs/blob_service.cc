#include "grpc/blobs/blob_service.h"

#include <atomic>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/blobs/upload.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/views.h"
#include "grpc/executor/unary_call.h"
#include "vmbfs/v1/blob.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::CallbackServerContext;

// One UploadBlob: each message is read, written to disk on the executor, and
// only then is the next one read, so that a caller's bytes never pile up here.
// A cancelled call ends its read, and the upload goes without a trace.
//
// Ownership: itself, until OnDone.
class UploadReactor final : public ::grpc::ServerReadReactor<v1::UploadBlobRequest> {
 public:
  UploadReactor(Host& host, Executor& executor, std::atomic<int>& uploads,
                CallbackServerContext* context, v1::Blob* response)
      : executor_(executor), uploads_(uploads), context_(context), response_(response) {
    if (uploads_.fetch_add(1) >= kUploadsMax) {
      Finish(ToGrpcStatus(BusyError(), "blobs"));
      return;
    }
    upload_.emplace(host);
    StartRead(&message_);
  }

  void OnReadDone(bool read) override {
    executor_.Post([this, read] { read ? TakeMessage() : End(); });
  }

  void OnDone() override {
    uploads_.fetch_sub(1);
    delete this;
  }

 private:
  void TakeMessage() {
    if (absl::Status taken = upload_->Take(message_); !taken.ok()) return Leave(taken);
    StartRead(&message_);
  }

  void End() {
    if (context_->IsCancelled()) return Leave(absl::CancelledError("the upload was cancelled"));
    const absl::StatusOr<BlobInfo> blob = upload_->Finish();
    if (blob.ok()) *response_ = ToProto(*blob);
    Leave(blob.status());
  }

  // The last step: what was not finished is removed first, here where the disk
  // may be waited for.
  void Leave(const absl::Status& status) {
    upload_.reset();
    Finish(ToGrpcStatus(status, "blobs"));
  }

  Executor& executor_;
  std::atomic<int>& uploads_;
  CallbackServerContext* const context_;
  v1::Blob* const response_;
  v1::UploadBlobRequest message_;
  std::optional<Upload> upload_;
};

class BlobService final : public v1::BlobService::CallbackService {
 public:
  BlobService(Host& host, Executor& executor) : host_(host), executor_(executor) {}

 private:
  ::grpc::ServerReadReactor<v1::UploadBlobRequest>* UploadBlob(CallbackServerContext* context,
                                                               v1::Blob* response) override {
    return new UploadReactor(host_, executor_, uploads_, context, response);
  }

  ::grpc::ServerUnaryReactor* GetBlob(CallbackServerContext* context,
                                      const v1::GetBlobRequest* request,
                                      v1::Blob* response) override {
    return RunUnary(executor_, context, request->name(),
                    [=, this] { return Get(*request, *response); });
  }

  absl::Status Get(const v1::GetBlobRequest& request, v1::Blob& response) {
    const absl::StatusOr<std::string> sha256 = ParseBlobName(request.name(), "name");
    if (!sha256.ok()) return sha256.status();
    const absl::StatusOr<BlobInfo> blob = host_.blobs().Find(*sha256);
    if (absl::IsNotFound(blob.status())) {
      return HostError(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND",
                       absl::StrCat(request.name(), " does not exist: upload it first"));
    }
    if (!blob.ok()) return blob.status();
    response = ToProto(*blob);
    return absl::OkStatus();
  }

  Host& host_;
  Executor& executor_;
  std::atomic<int> uploads_{0};
};

}  // namespace

std::unique_ptr<::grpc::Service> MakeBlobService(Host& host, Executor& executor) {
  return std::make_unique<BlobService>(host, executor);
}

}  // namespace vmbfs::rpc
