// A client of the control plane: one method a call, with deadlines and errors
// that say what to do. Nothing of gRPC is seen from here.

#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "vmbfs/v1/attachment.pb.h"
#include "vmbfs/v1/blob.pb.h"
#include "vmbfs/v1/imc.pb.h"
#include "vmbfs/v1/inspect.pb.h"
#include "vmbfs/v1/vm.pb.h"

namespace vmbfs::rpc {

// Reasons of errors that no server sent; see ReasonOf.
inline constexpr std::string_view kUnreachableReason = "UNREACHABLE";
inline constexpr std::string_view kTimedOutReason = "TIMED_OUT";

// How an error is told to a shell.
enum class Outcome { kDone, kFailed, kNotFound, kUnreachable };
Outcome OutcomeOf(const absl::Status& status);

// Thread safety: any thread; calls wait for the server.
// Errors of all calls: those of the service, with its reason (ReasonOf);
// kUnavailable when nobody answers at the address; kDeadlineExceeded.
class Client {
 public:
  // `address` is unix:PATH or HOST:PORT; `timeout` is for each call. Connects
  // with the first call.
  // Errors: kInvalidArgument for an address of another form.
  static absl::StatusOr<std::unique_ptr<Client>> Make(const std::string& address,
                                                      std::chrono::milliseconds timeout);
  virtual ~Client() = default;

  virtual absl::StatusOr<v1::Vm> CreateVm(const v1::CreateVmRequest& request) = 0;
  virtual absl::StatusOr<v1::Vm> GetVm(const v1::GetVmRequest& request) = 0;
  virtual absl::StatusOr<v1::ListVmsResponse> ListVms(const v1::ListVmsRequest& request) = 0;
  virtual absl::Status DeleteVm(const v1::DeleteVmRequest& request) = 0;

  virtual absl::StatusOr<v1::Attachment> CreateAttachment(
      const v1::CreateAttachmentRequest& request) = 0;
  virtual absl::StatusOr<v1::Attachment> GetAttachment(const v1::GetAttachmentRequest& request) = 0;
  virtual absl::StatusOr<v1::ListAttachmentsResponse> ListAttachments(
      const v1::ListAttachmentsRequest& request) = 0;
  virtual absl::StatusOr<v1::Attachment> UpdateAttachment(
      const v1::UpdateAttachmentRequest& request) = 0;
  virtual absl::Status DeleteAttachment(const v1::DeleteAttachmentRequest& request) = 0;

  virtual absl::StatusOr<v1::Blob> GetBlob(const v1::GetBlobRequest& request) = 0;

  // Fills a chunk with the next 1 byte to 1 MiB; leaves it empty at the end.
  using ChunkSource = std::function<absl::Status(std::string& chunk)>;
  // `timeout` is for the whole upload. An error of `next` cancels the upload
  // and is returned.
  virtual absl::StatusOr<v1::Blob> UploadBlob(const v1::UploadBlobRequest::Options& options,
                                              const ChunkSource& next,
                                              std::chrono::milliseconds timeout) = 0;

  virtual absl::StatusOr<v1::BuildImcResponse> BuildImc(const v1::BuildImcRequest& request) = 0;
  virtual absl::StatusOr<v1::Attachment> ProvisionImc(const v1::ProvisionImcRequest& request) = 0;
  virtual absl::StatusOr<v1::ValidateImcResponse> ValidateImc(
      const v1::ValidateImcRequest& request) = 0;
  virtual absl::StatusOr<v1::ExplainImcResponse> ExplainImc(
      const v1::ExplainImcRequest& request) = 0;
  virtual absl::StatusOr<v1::DiffImcResponse> DiffImc(const v1::DiffImcRequest& request) = 0;

  virtual absl::StatusOr<v1::InspectResponse> Inspect(const v1::InspectRequest& request) = 0;
};

}  // namespace vmbfs::rpc
