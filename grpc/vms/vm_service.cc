#include "grpc/vms/vm_service.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/views.h"
#include "grpc/executor/unary_call.h"
#include "grpc/vms/page_token.h"
#include "vmbfs/v1/vm.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::CallbackServerContext;
using ::grpc::ServerUnaryReactor;

class VmService final : public v1::VmService::CallbackService {
 public:
  VmService(Host& host, Executor& executor) : host_(host), executor_(executor) {}

 private:
  ServerUnaryReactor* CreateVm(CallbackServerContext* context, const v1::CreateVmRequest* request,
                               v1::Vm* response) override {
    return RunUnary(executor_, context, request->vm_id(),
                    [=, this] { return Create(*request, *response); });
  }

  ServerUnaryReactor* GetVm(CallbackServerContext* context, const v1::GetVmRequest* request,
                            v1::Vm* response) override {
    return RunUnary(executor_, context, request->name(),
                    [=, this] { return Get(*request, *response); });
  }

  ServerUnaryReactor* ListVms(CallbackServerContext* context, const v1::ListVmsRequest* request,
                              v1::ListVmsResponse* response) override {
    return RunUnary(executor_, context, "vms", [=, this] { return List(*request, *response); });
  }

  ServerUnaryReactor* DeleteVm(CallbackServerContext* context, const v1::DeleteVmRequest* request,
                               google::protobuf::Empty*) override {
    return RunUnary(executor_, context, request->name(), [=, this] { return Delete(*request); });
  }

  absl::Status Create(const v1::CreateVmRequest& request, v1::Vm& response) {
    if (absl::Status valid = CheckVmId(request.vm_id(), "vm_id"); !valid.ok()) return valid;
    VmOptions options;
    if (request.vm().has_owner_uid()) options.owner_uid = request.vm().owner_uid();
    options.allow_unsealed_memory = request.vm().allow_unsealed_memory();
    options.monitored = request.vm().monitored();
    if (request.validate_only()) return CheckCreate(request, options, response);
    absl::StatusOr<VmView> vm = host_.CreateVm(request.vm_id(), options);
    if (!vm.ok()) return AboutField(vm.status(), "vm_id");
    response = ToProto(*vm);
    return absl::OkStatus();
  }

  absl::Status CheckCreate(const v1::CreateVmRequest& request, const VmOptions& options,
                           v1::Vm& response) {
    const absl::StatusOr<VmView> existing = host_.GetVm(request.vm_id());
    if (existing.ok()) {
      return HostError(absl::StatusCode::kAlreadyExists, "VM_ALREADY_EXISTS",
                       absl::StrCat("VM ", request.vm_id(), " exists already"));
    }
    if (!absl::IsNotFound(existing.status())) return AboutField(existing.status(), "vm_id");
    VmView view;
    view.name = request.vm_id();
    view.owner_uid = options.owner_uid;
    view.allow_unsealed_memory = options.allow_unsealed_memory;
    view.monitored = options.monitored;
    response = ToProto(view);
    response.clear_create_time();
    return absl::OkStatus();
  }

  absl::Status Get(const v1::GetVmRequest& request, v1::Vm& response) {
    const absl::StatusOr<std::string> name = ParseVmName(request.name(), "name");
    if (!name.ok()) return name.status();
    const absl::StatusOr<VmView> vm = host_.GetVm(*name);
    if (!vm.ok()) return AboutField(vm.status(), "name");
    response = ToProto(*vm);
    return absl::OkStatus();
  }

  absl::Status List(const v1::ListVmsRequest& request, v1::ListVmsResponse& response) {
    if (request.page_size() < 0) {
      return FieldError("page_size", "PAGE_SIZE_INVALID",
                        absl::StrCat("page_size is ", request.page_size(), ": give 1 to ",
                                     kPageSizeMax, ", or 0 for the default"));
    }
    const int limit =
        request.page_size() == 0 ? kPageSizeDefault : std::min(request.page_size(), kPageSizeMax);
    const absl::StatusOr<std::string> after = ParsePageToken(request.page_token());
    if (!after.ok()) return after.status();
    const absl::StatusOr<Host::VmPage> page = host_.ListVms(*after, static_cast<size_t>(limit));
    if (!page.ok()) return page.status();
    for (const VmView& vm : page->vms) *response.add_vms() = ToProto(vm);
    response.set_next_page_token(MakePageToken(page->next_after));
    return absl::OkStatus();
  }

  absl::Status Delete(const v1::DeleteVmRequest& request) {
    const absl::StatusOr<std::string> name = ParseVmName(request.name(), "name");
    if (!name.ok()) return name.status();
    return AboutField(host_.DeleteVm(*name, request.force(), request.etag()), "name");
  }

  Host& host_;
  Executor& executor_;
};

}  // namespace

std::unique_ptr<::grpc::Service> MakeVmService(Host& host, Executor& executor) {
  return std::make_unique<VmService>(host, executor);
}

}  // namespace vmbfs::rpc
