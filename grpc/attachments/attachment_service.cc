#include "grpc/attachments/attachment_service.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/path/guest_path.h"
#include "grpc/attachments/source_update.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/views.h"
#include "grpc/executor/unary_call.h"
#include "grpc/hives/hives.h"
#include "vmbfs/v1/attachment.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::CallbackServerContext;
using ::grpc::ServerUnaryReactor;

constexpr std::string_view kSourceField = "attachment.file";

class AttachmentService final : public v1::AttachmentService::CallbackService {
 public:
  AttachmentService(Host& host, Executor& executor, Executor& hive_executor)
      : host_(host), executor_(executor), hive_executor_(hive_executor) {}

 private:
  ServerUnaryReactor* CreateAttachment(CallbackServerContext* context,
                                       const v1::CreateAttachmentRequest* request,
                                       v1::Attachment* response) override {
    return RunUnary(ExecutorFor(request->attachment_id()), context, request->parent(),
                    [=, this] { return Create(*request, *response); });
  }

  ServerUnaryReactor* GetAttachment(CallbackServerContext* context,
                                    const v1::GetAttachmentRequest* request,
                                    v1::Attachment* response) override {
    return RunUnary(executor_, context, request->name(),
                    [=, this] { return Get(*request, *response); });
  }

  ServerUnaryReactor* ListAttachments(CallbackServerContext* context,
                                      const v1::ListAttachmentsRequest* request,
                                      v1::ListAttachmentsResponse* response) override {
    return RunUnary(executor_, context, request->parent(),
                    [=, this] { return List(*request, *response); });
  }

  ServerUnaryReactor* UpdateAttachment(CallbackServerContext* context,
                                       const v1::UpdateAttachmentRequest* request,
                                       v1::Attachment* response) override {
    const std::string& name = request->attachment().name();
    return RunUnary(ExecutorFor(std::string_view(name).substr(name.rfind('/') + 1)), context, name,
                    [=, this] { return Update(*request, *response); });
  }

  ServerUnaryReactor* DeleteAttachment(CallbackServerContext* context,
                                       const v1::DeleteAttachmentRequest* request,
                                       google::protobuf::Empty*) override {
    return RunUnary(executor_, context, request->name(), [=, this] { return Delete(*request); });
  }

  absl::Status Create(const v1::CreateAttachmentRequest& request, v1::Attachment& response);
  absl::Status Get(const v1::GetAttachmentRequest& request, v1::Attachment& response);
  absl::Status List(const v1::ListAttachmentsRequest& request,
                    v1::ListAttachmentsResponse& response);
  absl::Status Update(const v1::UpdateAttachmentRequest& request, v1::Attachment& response);
  absl::Status Delete(const v1::DeleteAttachmentRequest& request);

  // For validate_only: what attaching or swapping would refuse, as far as it can
  // be told without doing it. Fills in the content's size.
  absl::Status CheckContent(DeviceKind device, FileContent& content);

  // What is given to imc is read as a hive.
  Executor& ExecutorFor(std::string_view device) {
    return device == DeviceName(DeviceKind::kImc) ? hive_executor_ : executor_;
  }

  Host& host_;
  Executor& executor_;
  Executor& hive_executor_;
};

// Answers with the attachment and what there is to say about its content, or
// with the host's error about its source.
absl::Status Answer(const absl::StatusOr<AttachmentView>& attachment, v1::Attachment& response,
                    const std::vector<std::string>& warnings = {}) {
  if (!attachment.ok()) return AboutField(attachment.status(), kSourceField);
  response = ToProto(*attachment);
  AddWarnings(warnings, *response.mutable_warnings());
  return absl::OkStatus();
}

absl::Status AttachmentService::CheckContent(DeviceKind device, FileContent& content) {
  const absl::StatusOr<BlobInfo> blob = host_.blobs().Find(content.sha256);
  if (absl::IsNotFound(blob.status())) {
    return HostError(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND",
                     absl::StrCat(BlobName(content.sha256), " does not exist: upload it first"));
  }
  if (!blob.ok()) return blob.status();
  content.size_bytes = blob->size_bytes;
  if (device == DeviceKind::kImc) {
    content.name = "imc.hiv";
    if (content.size_bytes == 0 || content.size_bytes > kImcBytesMax) {
      return FieldError(kSourceField, "CONTENT_SIZE_INVALID",
                        absl::StrCat("the hive has ", content.size_bytes, " bytes: imc takes 1 to ",
                                     kImcBytesMax));
    }
    return absl::OkStatus();
  }
  return AboutField(FileNameFromUtf8(content.name).status(), "attachment.file.file_name");
}

absl::Status AttachmentService::Create(const v1::CreateAttachmentRequest& request,
                                       v1::Attachment& response) {
  const absl::StatusOr<std::string> vm = ParseVmName(request.parent(), "parent");
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<DeviceKind> device = ParseDevice(request.attachment_id(), "attachment_id");
  if (!device.ok()) return device.status();
  absl::StatusOr<FileContent> content = ParseSource(request.attachment());
  if (!content.ok()) return content.status();
  // Nothing is read for a VM that is not there.
  if (absl::Status found = host_.GetVm(*vm).status(); !found.ok()) return found;
  const auto warnings = WarningsAbout(host_, *device, content->sha256, request.strict());
  if (!warnings.ok()) return warnings.status();
  if (!request.validate_only()) {
    return Answer(host_.Attach(*vm, *device, *content), response, *warnings);
  }

  const absl::StatusOr<AttachmentView> existing = host_.GetAttachment(*vm, *device);
  if (existing.ok()) {
    return HostError(absl::StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED",
                     absl::StrCat(AttachmentName(*vm, *device),
                                  " exists already: update it to swap its content"));
  }
  if (!absl::IsNotFound(existing.status())) return existing.status();
  if (absl::Status fits = CheckContent(*device, *content); !fits.ok()) return fits;
  AttachmentView view;
  view.vm = *vm;
  view.device = *device;
  view.wanted = *content;
  (void)Answer(view, response, *warnings);
  response.clear_create_time();
  response.clear_update_time();
  return absl::OkStatus();
}

absl::Status AttachmentService::Get(const v1::GetAttachmentRequest& request,
                                    v1::Attachment& response) {
  const absl::StatusOr<AttachmentId> id = ParseAttachmentName(request.name(), "name");
  if (!id.ok()) return id.status();
  return Answer(host_.GetAttachment(id->vm, id->device), response);
}

absl::Status AttachmentService::List(const v1::ListAttachmentsRequest& request,
                                     v1::ListAttachmentsResponse& response) {
  const absl::StatusOr<std::string> name = ParseVmName(request.parent(), "parent");
  if (!name.ok()) return name.status();
  const absl::StatusOr<VmView> vm = host_.GetVm(*name);
  if (!vm.ok()) return AboutField(vm.status(), "parent");
  for (const AttachmentView& attachment : vm->attachments) {
    *response.add_attachments() = ToProto(attachment);
  }
  return absl::OkStatus();
}

absl::Status AttachmentService::Update(const v1::UpdateAttachmentRequest& request,
                                       v1::Attachment& response) {
  const v1::Attachment& attachment = request.attachment();
  const absl::StatusOr<AttachmentId> id = ParseAttachmentName(attachment.name(), "attachment.name");
  if (!id.ok()) return id.status();
  const absl::StatusOr<SourceUpdate> update = ParseSourceUpdate(request);
  if (!update.ok()) return update.status();
  absl::StatusOr<AttachmentView> current = host_.GetAttachment(id->vm, id->device);
  if (!current.ok()) return current.status();
  absl::StatusOr<FileContent> content = MergeSource(attachment, *update, current->wanted);
  if (!content.ok()) return content.status();
  const auto warnings = WarningsAbout(host_, id->device, content->sha256, request.strict());
  if (!warnings.ok()) return warnings.status();

  if (!request.validate_only()) {
    // What is kept of the source must not have changed meanwhile.
    const bool whole = update->blob && (update->file_name || id->device == DeviceKind::kImc);
    const std::string& etag =
        attachment.etag().empty() && !whole ? current->etag : attachment.etag();
    return Answer(host_.Swap(id->vm, id->device, *content, etag), response, *warnings);
  }
  if (!attachment.etag().empty() && attachment.etag() != current->etag) {
    return HostError(absl::StatusCode::kAborted, "ETAG_MISMATCH",
                     absl::StrCat("the attachment has changed since etag ", attachment.etag(),
                                  ": get it and decide anew"));
  }
  if (absl::Status fits = CheckContent(id->device, *content); !fits.ok()) return fits;
  current->wanted = *content;
  return Answer(current, response, *warnings);
}

absl::Status AttachmentService::Delete(const v1::DeleteAttachmentRequest& request) {
  const absl::StatusOr<AttachmentId> id = ParseAttachmentName(request.name(), "name");
  if (!id.ok()) return id.status();
  return AboutField(host_.Detach(id->vm, id->device, request.force(), request.etag()), "name");
}

}  // namespace

std::unique_ptr<::grpc::Service> MakeAttachmentService(Host& host, Executor& executor,
                                                       Executor& hive_executor) {
  return std::make_unique<AttachmentService>(host, executor, hive_executor);
}

}  // namespace vmbfs::rpc
