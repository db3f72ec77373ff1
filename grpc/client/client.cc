#include "grpc/client/client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "core/host/host.h"
#include "grpc/convert/status.h"
#include "grpc/library/library.h"
#include "vmbfs/v1/attachment.grpc.pb.h"
#include "vmbfs/v1/blob.grpc.pb.h"
#include "vmbfs/v1/imc.grpc.pb.h"
#include "vmbfs/v1/inspect.grpc.pb.h"
#include "vmbfs/v1/vm.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using std::chrono::milliseconds;

absl::Status CheckAddress(const std::string& address) {
  constexpr std::string_view kUnix = "unix:";
  if (address.starts_with(kUnix) && address.size() > kUnix.size()) return absl::OkStatus();
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon != address.npos && colon > 0 && absl::SimpleAtoi(address.substr(colon + 1), &port) &&
      port > 0 && port <= UINT16_MAX) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", address, "\" is no address: give unix:PATH or HOST:PORT"));
}

class GrpcClient final : public Client {
 public:
  GrpcClient(const std::string& address, milliseconds timeout)
      : address_(address), timeout_(timeout) {
    ::grpc::ChannelArguments arguments;
    // The daemon is on this machine or named outright.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    const std::shared_ptr<::grpc::Channel> channel =
        ::grpc::CreateCustomChannel(address, ::grpc::InsecureChannelCredentials(), arguments);
    vms_ = v1::VmService::NewStub(channel);
    attachments_ = v1::AttachmentService::NewStub(channel);
    blobs_ = v1::BlobService::NewStub(channel);
    imc_ = v1::ImcService::NewStub(channel);
    inspect_ = v1::InspectService::NewStub(channel);
  }

  absl::StatusOr<v1::Vm> CreateVm(const v1::CreateVmRequest& request) override {
    return Call<v1::Vm>(*vms_, &v1::VmService::Stub::CreateVm, request);
  }
  absl::StatusOr<v1::Vm> GetVm(const v1::GetVmRequest& request) override {
    return Call<v1::Vm>(*vms_, &v1::VmService::Stub::GetVm, request);
  }
  absl::StatusOr<v1::ListVmsResponse> ListVms(const v1::ListVmsRequest& request) override {
    return Call<v1::ListVmsResponse>(*vms_, &v1::VmService::Stub::ListVms, request);
  }
  absl::Status DeleteVm(const v1::DeleteVmRequest& request) override {
    return Call<google::protobuf::Empty>(*vms_, &v1::VmService::Stub::DeleteVm, request).status();
  }

  absl::StatusOr<v1::Attachment> CreateAttachment(
      const v1::CreateAttachmentRequest& request) override {
    return Call<v1::Attachment>(*attachments_, &v1::AttachmentService::Stub::CreateAttachment,
                                request);
  }
  absl::StatusOr<v1::Attachment> GetAttachment(const v1::GetAttachmentRequest& request) override {
    return Call<v1::Attachment>(*attachments_, &v1::AttachmentService::Stub::GetAttachment,
                                request);
  }
  absl::StatusOr<v1::ListAttachmentsResponse> ListAttachments(
      const v1::ListAttachmentsRequest& request) override {
    return Call<v1::ListAttachmentsResponse>(
        *attachments_, &v1::AttachmentService::Stub::ListAttachments, request);
  }
  absl::StatusOr<v1::Attachment> UpdateAttachment(
      const v1::UpdateAttachmentRequest& request) override {
    return Call<v1::Attachment>(*attachments_, &v1::AttachmentService::Stub::UpdateAttachment,
                                request);
  }
  absl::Status DeleteAttachment(const v1::DeleteAttachmentRequest& request) override {
    return Call<google::protobuf::Empty>(*attachments_,
                                         &v1::AttachmentService::Stub::DeleteAttachment, request)
        .status();
  }

  absl::StatusOr<v1::Blob> GetBlob(const v1::GetBlobRequest& request) override {
    return Call<v1::Blob>(*blobs_, &v1::BlobService::Stub::GetBlob, request);
  }

  absl::StatusOr<v1::Blob> UploadBlob(const v1::UploadBlobRequest::Options& options,
                                      const ChunkSource& next, milliseconds timeout) override {
    ::grpc::ClientContext context;
    SetDeadline(context, timeout);
    v1::Blob blob;
    const auto writer = blobs_->UploadBlob(&context, &blob);
    v1::UploadBlobRequest message;
    *message.mutable_options() = options;
    // A write fails once the server has answered: Finish says what.
    for (bool open = writer->Write(message); open; open = writer->Write(message)) {
      if (absl::Status filled = next(*message.mutable_chunk()); !filled.ok()) {
        context.TryCancel();
        writer->Finish();
        return filled;
      }
      if (message.chunk().empty()) {
        writer->WritesDone();
        break;
      }
    }
    if (absl::Status status = Explain(writer->Finish(), timeout); !status.ok()) return status;
    return blob;
  }

  absl::StatusOr<v1::BuildImcResponse> BuildImc(const v1::BuildImcRequest& request) override {
    return Call<v1::BuildImcResponse>(*imc_, &v1::ImcService::Stub::BuildImc, request);
  }
  absl::StatusOr<v1::Attachment> ProvisionImc(const v1::ProvisionImcRequest& request) override {
    return Call<v1::Attachment>(*imc_, &v1::ImcService::Stub::ProvisionImc, request);
  }
  absl::StatusOr<v1::ValidateImcResponse> ValidateImc(
      const v1::ValidateImcRequest& request) override {
    return Call<v1::ValidateImcResponse>(*imc_, &v1::ImcService::Stub::ValidateImc, request);
  }
  absl::StatusOr<v1::ExplainImcResponse> ExplainImc(const v1::ExplainImcRequest& request) override {
    return Call<v1::ExplainImcResponse>(*imc_, &v1::ImcService::Stub::ExplainImc, request);
  }
  absl::StatusOr<v1::DiffImcResponse> DiffImc(const v1::DiffImcRequest& request) override {
    return Call<v1::DiffImcResponse>(*imc_, &v1::ImcService::Stub::DiffImc, request);
  }

  absl::StatusOr<v1::InspectResponse> Inspect(const v1::InspectRequest& request) override {
    return Call<v1::InspectResponse>(*inspect_, &v1::InspectService::Stub::Inspect, request);
  }

 private:
  template <typename Response, typename Stub, typename Request>
  absl::StatusOr<Response> Call(Stub& stub,
                                ::grpc::Status (Stub::*method)(::grpc::ClientContext*,
                                                               const Request&, Response*),
                                const Request& request) {
    ::grpc::ClientContext context;
    SetDeadline(context, timeout_);
    Response response;
    absl::Status status = Explain((stub.*method)(&context, request, &response), timeout_);
    if (!status.ok()) return status;
    return response;
  }

  static void SetDeadline(::grpc::ClientContext& context, milliseconds timeout) {
    context.set_deadline(std::chrono::system_clock::now() + timeout);
  }

  // The server's error as it is; gRPC's own in words about this server.
  absl::Status Explain(const ::grpc::Status& wire, milliseconds timeout) const {
    absl::Status status = FromGrpcStatus(wire);
    if (!ReasonOf(status).empty()) return status;
    switch (status.code()) {
      case absl::StatusCode::kUnavailable:
        return HostError(status.code(), kUnreachableReason,
                         absl::StrCat("cannot reach ", address_, ": ", status.message()));
      case absl::StatusCode::kDeadlineExceeded:
        return HostError(status.code(), kTimedOutReason,
                         absl::StrCat("no answer from ", address_, " within ",
                                      static_cast<double>(timeout.count()) / 1000, " s"));
      default:
        return status;
    }
  }

  const std::string address_;
  const milliseconds timeout_;
  std::unique_ptr<v1::VmService::Stub> vms_;
  std::unique_ptr<v1::AttachmentService::Stub> attachments_;
  std::unique_ptr<v1::BlobService::Stub> blobs_;
  std::unique_ptr<v1::ImcService::Stub> imc_;
  std::unique_ptr<v1::InspectService::Stub> inspect_;
};

}  // namespace

Outcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return Outcome::kDone;
    case absl::StatusCode::kNotFound:
      return Outcome::kNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return Outcome::kUnreachable;
    default:
      return Outcome::kFailed;
  }
}

absl::StatusOr<std::unique_ptr<Client>> Client::Make(const std::string& address,
                                                     milliseconds timeout) {
  if (absl::Status valid = CheckAddress(address); !valid.ok()) return valid;
  KeepGrpcLibrary();
  return std::make_unique<GrpcClient>(address, timeout);
}

}  // namespace vmbfs::rpc
