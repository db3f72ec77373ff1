#include "tests/conformance/host_control.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::conformance {
namespace {

constexpr char kDevice[] = "imc";
constexpr size_t kUploadBytes = 200'000;

}  // namespace

HostControl::HostControl(std::unique_ptr<rpc::Client> client, std::string vm_name)
    : client_(std::move(client)), vm_name_(std::move(vm_name)) {}

absl::StatusOr<std::unique_ptr<HostControl>> HostControl::Connect(
    const std::string& address, const std::string& vm, std::chrono::milliseconds timeout) {
  auto client = rpc::Client::Make(address, timeout);
  if (!client.ok()) return client.status();
  std::unique_ptr<HostControl> control(
      new HostControl(*std::move(client), absl::StrCat("vms/", vm)));
  v1::GetAttachmentRequest request;
  request.set_name(control->AttachmentName());
  const absl::StatusOr<v1::Attachment> attachment = control->client_->GetAttachment(request);
  if (attachment.ok()) {
    control->attached_ = true;
    control->blob_name_ = attachment->file().blob();
    return control;
  }
  if (rpc::OutcomeOf(attachment.status()) != rpc::Outcome::kNotFound) return attachment.status();
  absl::Status status = control->Upload(timeout);
  if (status.ok()) status = control->Attach();
  if (!status.ok()) return status;
  return control;
}

absl::Status HostControl::Upload(std::chrono::milliseconds timeout) {
  v1::UploadBlobRequest::Options options;
  options.set_size_bytes(kUploadBytes);
  bool sent = false;
  const auto blob = client_->UploadBlob(
      options,
      [&sent](std::string& chunk) {
        if (!std::exchange(sent, true)) chunk.assign(kUploadBytes, 'v');
        return absl::OkStatus();
      },
      timeout);
  if (blob.ok()) blob_name_ = blob->name();
  return blob.status();
}

std::string HostControl::AttachmentName() const {
  return absl::StrCat(vm_name_, "/attachments/", kDevice);
}

absl::Status HostControl::Detach() {
  v1::DeleteAttachmentRequest request;
  request.set_name(AttachmentName());
  request.set_force(true);
  absl::Status status = client_->DeleteAttachment(request);
  if (status.ok()) attached_ = false;
  return status;
}

absl::Status HostControl::Attach() {
  v1::CreateAttachmentRequest request;
  request.set_parent(vm_name_);
  request.set_attachment_id(kDevice);
  request.mutable_attachment()->mutable_file()->set_blob(blob_name_);
  absl::Status status = client_->CreateAttachment(request).status();
  if (status.ok()) attached_ = true;
  return status;
}

absl::StatusOr<bool> HostControl::IsOpen() {
  v1::GetAttachmentRequest request;
  request.set_name(AttachmentName());
  const absl::StatusOr<v1::Attachment> attachment = client_->GetAttachment(request);
  if (!attachment.ok()) return attachment.status();
  return attachment->open();
}

}  // namespace vmbfs::conformance
