#include "tools/vmbfsctl/commands.h"

#include <filesystem>
#include <ostream>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tools/vmbfsctl/text.h"
#include "tools/vmbfsctl/upload.h"

namespace vmbfs::ctl {
namespace {

constexpr int kPageSize = 500;
constexpr char kImc[] = "imc";

std::string VmName(const Arguments& arguments) { return absl::StrCat("vms/", arguments.vm); }

std::string AttachmentName(const Arguments& arguments) {
  return absl::StrCat(VmName(arguments), "/attachments/", arguments.device);
}

template <typename Message>
absl::Status Show(const absl::StatusOr<Message>& message, const Context& context) {
  if (!message.ok()) return message.status();
  return Print(*message, context.format, context.out);
}

// Uploads the file and describes it as the source of an attachment.
absl::Status FillSource(const Arguments& arguments, const Context& context,
                        v1::Attachment& attachment) {
  const absl::StatusOr<v1::Blob> blob = UploadFile(context.client, arguments.file, context.timeout);
  if (!blob.ok()) return blob.status();
  attachment.mutable_file()->set_blob(blob->name());
  if (arguments.device != kImc) {
    attachment.mutable_file()->set_file_name(
        arguments.name.empty() ? std::filesystem::path(arguments.file).filename().native()
                               : arguments.name);
  }
  return absl::OkStatus();
}

void WarnOfForce(const Context& context) {
  context.err << "vmbfsctl: warning: --force revokes the offer even while the guest uses it; "
                 "its firmware does not survive that\n";
}

}  // namespace

absl::Status ShowAttachment(const absl::StatusOr<v1::Attachment>& attachment,
                            const Context& context) {
  if (attachment.ok()) {
    for (const std::string& warning : attachment->warnings()) {
      context.err << "vmbfsctl: warning: " << Printable(warning) << "\n";
    }
  }
  return Show(attachment, context);
}

absl::Status CreateVm(const Arguments& arguments, const Context& context) {
  v1::CreateVmRequest request;
  request.set_vm_id(arguments.vm);
  if (arguments.owner_uid) request.mutable_vm()->set_owner_uid(*arguments.owner_uid);
  request.mutable_vm()->set_allow_unsealed_memory(arguments.allow_unsealed_memory);
  request.mutable_vm()->set_monitored(arguments.monitored);
  return Show(context.client.CreateVm(request), context);
}

absl::Status GetVm(const Arguments& arguments, const Context& context) {
  v1::GetVmRequest request;
  request.set_name(VmName(arguments));
  return Show(context.client.GetVm(request), context);
}

absl::Status ListVms(const Arguments& arguments, const Context& context) {
  v1::ListVmsResponse all;
  v1::ListVmsRequest request;
  request.set_page_size(kPageSize);
  do {
    absl::StatusOr<v1::ListVmsResponse> page = context.client.ListVms(request);
    if (!page.ok()) return page.status();
    for (v1::Vm& vm : *page->mutable_vms()) {
      if (absl::StartsWith(vm.name(), VmName(arguments))) *all.add_vms() = std::move(vm);
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  if (all.vms().empty()) context.err << "vmbfsctl: there is no such VM\n";
  return Print(all, context.format, context.out);
}

absl::Status DeleteVm(const Arguments& arguments, const Context& context) {
  v1::DeleteVmRequest request;
  request.set_name(VmName(arguments));
  request.set_force(arguments.force);
  if (arguments.force) WarnOfForce(context);
  absl::Status status = context.client.DeleteVm(request);
  if (status.ok()) context.err << "vmbfsctl: deleted " << request.name() << "\n";
  return status;
}

absl::Status Attach(const Arguments& arguments, const Context& context) {
  v1::GetVmRequest vm;
  vm.set_name(VmName(arguments));
  // No upload for a VM that is not there.
  if (absl::Status found = context.client.GetVm(vm).status(); !found.ok()) return found;
  v1::CreateAttachmentRequest request;
  request.set_parent(VmName(arguments));
  request.set_attachment_id(arguments.device);
  absl::Status filled = FillSource(arguments, context, *request.mutable_attachment());
  if (!filled.ok()) return filled;
  request.set_strict(arguments.strict);
  return ShowAttachment(context.client.CreateAttachment(request), context);
}

absl::Status Swap(const Arguments& arguments, const Context& context) {
  v1::GetAttachmentRequest attachment;
  attachment.set_name(AttachmentName(arguments));
  if (absl::Status found = context.client.GetAttachment(attachment).status(); !found.ok()) {
    return found;
  }
  v1::UpdateAttachmentRequest request;
  request.mutable_attachment()->set_name(AttachmentName(arguments));
  request.mutable_update_mask()->add_paths("file");
  absl::Status filled = FillSource(arguments, context, *request.mutable_attachment());
  if (!filled.ok()) return filled;
  request.set_strict(arguments.strict);
  return ShowAttachment(context.client.UpdateAttachment(request), context);
}

absl::Status Detach(const Arguments& arguments, const Context& context) {
  v1::DeleteAttachmentRequest request;
  request.set_name(AttachmentName(arguments));
  request.set_force(arguments.force);
  if (arguments.force) WarnOfForce(context);
  absl::Status status = context.client.DeleteAttachment(request);
  if (status.ok()) context.err << "vmbfsctl: detached " << request.name() << "\n";
  return status;
}

absl::Status Inspect(const Arguments& arguments, const Context& context) {
  v1::InspectRequest request;
  request.set_path(arguments.path);
  request.set_depth(arguments.depth);
  const absl::StatusOr<v1::InspectResponse> response = context.client.Inspect(request);
  if (!response.ok()) return response.status();
  return Print(response->node(), context.format, context.out);
}

}  // namespace vmbfs::ctl
