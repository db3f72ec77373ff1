#include "grpc/imc/imc_service.h"

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/blob/blob_store.h"
#include "core/blob/whole_blob.h"
#include "core/hive/explain.h"
#include "core/hive/hive_diff.h"
#include "core/hive/hive_reader.h"
#include "core/hive/imc_build.h"
#include "core/hive/imc_settings.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/utf8.h"
#include "grpc/convert/views.h"
#include "grpc/executor/unary_call.h"
#include "grpc/hives/hives.h"
#include "grpc/imc/imc_inputs.h"
#include "vmbfs/v1/imc.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

using ::grpc::CallbackServerContext;
using ::grpc::ServerUnaryReactor;

constexpr size_t kIncludedHiveBytesMax = 2 << 20;
constexpr size_t kRegFileBytesMax = 1 << 20;
constexpr char kHiveInvalid[] = "IMC_HIVE_INVALID";

class ImcService final : public v1::ImcService::CallbackService {
 public:
  ImcService(Host& host, Executor& executor) : host_(host), executor_(executor) {}

 private:
  ServerUnaryReactor* BuildImc(CallbackServerContext* context, const v1::BuildImcRequest* request,
                               v1::BuildImcResponse* response) override {
    return RunUnary(executor_, context, "imc", [=, this] { return Build(*request, *response); });
  }

  ServerUnaryReactor* ProvisionImc(CallbackServerContext* context,
                                   const v1::ProvisionImcRequest* request,
                                   v1::Attachment* response) override {
    return RunUnary(executor_, context, request->vm(),
                    [=, this] { return Provision(*request, *response); });
  }

  ServerUnaryReactor* ValidateImc(CallbackServerContext* context,
                                  const v1::ValidateImcRequest* request,
                                  v1::ValidateImcResponse* response) override {
    return RunUnary(executor_, context, request->hive().blob(),
                    [=, this] { return Check(*request, *response); });
  }

  ServerUnaryReactor* ExplainImc(CallbackServerContext* context,
                                 const v1::ExplainImcRequest* request,
                                 v1::ExplainImcResponse* response) override {
    return RunUnary(executor_, context, request->hive().blob(),
                    [=, this] { return Explain(*request, *response); });
  }

  ServerUnaryReactor* DiffImc(CallbackServerContext* context, const v1::DiffImcRequest* request,
                              v1::DiffImcResponse* response) override {
    return RunUnary(executor_, context, "imc", [=, this] { return Diff(*request, *response); });
  }

  absl::Status Build(const v1::BuildImcRequest& request, v1::BuildImcResponse& response);
  absl::Status Provision(const v1::ProvisionImcRequest& request, v1::Attachment& response);
  absl::Status Check(const v1::ValidateImcRequest& request, v1::ValidateImcResponse& response);
  absl::Status Explain(const v1::ExplainImcRequest& request, v1::ExplainImcResponse& response);
  absl::Status Diff(const v1::DiffImcRequest& request, v1::DiffImcResponse& response);

  // For validate_only: the attachment as provisioning would leave it.
  absl::StatusOr<AttachmentView> Expected(const std::string& vm, const BlobInfo& hive,
                                          const std::string& etag);
  absl::StatusOr<hive::HiveReading> Read(const v1::HiveSource& source, std::string_view field);

  Host& host_;
  Executor& executor_;
};

absl::StatusOr<BlobInfo> Store(Host& host, const std::vector<std::byte>& hive) {
  auto blob = StoreBlob(host.blobs(), hive);
  if (blob.ok()) return blob;
  return HostError(blob.status().code(), "BLOB_NOT_STORED", std::string(blob.status().message()));
}

BlobInfo InfoOf(const std::vector<std::byte>& hive) {
  return {.sha256 = Sha256Hex(hive), .size_bytes = hive.size()};
}

FileContent ContentOf(const BlobInfo& hive) {
  return {.sha256 = hive.sha256, .size_bytes = hive.size_bytes, .name = "imc.hiv"};
}

absl::Status ImcService::Build(const v1::BuildImcRequest& request, v1::BuildImcResponse& response) {
  const absl::StatusOr<hive::ImcBuild> build =
      BuildFrom(host_, request.inputs(), request.options());
  if (!build.ok()) return build.status();
  absl::StatusOr<BlobInfo> blob = InfoOf(build->hive);
  if (!request.validate_only()) blob = Store(host_, build->hive);
  if (!blob.ok()) return blob.status();
  *response.mutable_blob() = ToProto(*blob);
  AddWarnings(build->warnings, *response.mutable_warnings());
  if (request.include_hive() && build->hive.size() <= kIncludedHiveBytesMax) {
    response.set_hive(build->hive.data(), build->hive.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<AttachmentView> ImcService::Expected(const std::string& vm, const BlobInfo& hive,
                                                    const std::string& etag) {
  absl::StatusOr<AttachmentView> view = host_.GetAttachment(vm, DeviceKind::kImc);
  if (view.ok() && view->wanted.sha256 == hive.sha256) return view;
  if (!view.ok() && !absl::IsNotFound(view.status())) return view;
  if (!etag.empty() && (!view.ok() || view->etag != etag)) {
    return HostError(absl::StatusCode::kAborted, "ETAG_MISMATCH",
                     absl::StrCat("the attachment of ", VmName(vm),
                                  " has changed since the request's etag: get it and decide anew"));
  }
  if (!view.ok()) {
    view = AttachmentView{};
    view->vm = vm;
    view->device = DeviceKind::kImc;
  }
  view->wanted = ContentOf(hive);
  return view;
}

absl::Status ImcService::Provision(const v1::ProvisionImcRequest& request,
                                   v1::Attachment& response) {
  const absl::StatusOr<std::string> vm = ParseVmName(request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  // Nothing is built or stored for a VM that is not there.
  if (absl::Status found = host_.GetVm(*vm).status(); !found.ok()) return found;
  const absl::StatusOr<hive::ImcBuild> build =
      BuildFrom(host_, request.inputs(), request.options());
  if (!build.ok()) return build.status();

  absl::StatusOr<AttachmentView> attachment;
  if (request.validate_only()) {
    attachment = Expected(*vm, InfoOf(build->hive), request.etag());
  } else {
    const absl::StatusOr<BlobInfo> blob = Store(host_, build->hive);
    if (!blob.ok()) return blob.status();
    attachment = host_.AttachOrSwap(*vm, DeviceKind::kImc, ContentOf(*blob), request.etag());
  }
  if (!attachment.ok()) return AboutField(attachment.status(), "vm");
  response = ToProto(*attachment);
  AddWarnings(build->warnings, *response.mutable_warnings());
  if (attachment->create_time_us == 0) {
    response.clear_create_time();
    response.clear_update_time();
  }
  return absl::OkStatus();
}

absl::Status ImcService::Check(const v1::ValidateImcRequest& request,
                               v1::ValidateImcResponse& response) {
  const auto hive = ReadHiveSource(host_, request.hive(), "hive");
  if (!hive.ok()) return hive.status();
  const absl::StatusOr<hive::ImcValidation> valid = Validate(*hive, "hive");
  if (!valid.ok()) return valid.status();
  AddWarnings(valid->warnings, *response.mutable_warnings());
  response.set_key_count(static_cast<int64_t>(valid->tree.key_count()));
  return absl::OkStatus();
}

absl::StatusOr<hive::HiveReading> ImcService::Read(const v1::HiveSource& source,
                                                   std::string_view field) {
  const auto hive = ReadHiveSource(host_, source, field);
  if (!hive.ok()) return hive.status();
  auto reading = hive::ReadHive(*hive);
  if (!reading.ok()) return HiveError(reading.status(), kHiveInvalid, field);
  return reading;
}

absl::Status ImcService::Explain(const v1::ExplainImcRequest& request,
                                 v1::ExplainImcResponse& response) {
  const absl::StatusOr<hive::HiveReading> reading = Read(request.hive(), "hive");
  if (!reading.ok()) return reading.status();
  LineCollector lines(*response.mutable_lines());
  hive::ExplainHive(reading->tree, std::ref(lines));
  response.set_lines_left_out(lines.left_out());
  const hive::ImcFindings findings = hive::CheckImc(reading->tree);
  std::vector<std::string> warnings = findings.errors;
  for (const auto* more : {&findings.warnings, &reading->warnings}) {
    warnings.insert(warnings.end(), more->begin(), more->end());
  }
  AddWarnings(warnings, *response.mutable_warnings());
  return absl::OkStatus();
}

absl::Status ImcService::Diff(const v1::DiffImcRequest& request, v1::DiffImcResponse& response) {
  const absl::StatusOr<hive::HiveReading> first = Read(request.first(), "first");
  if (!first.ok()) return AboutResource(first.status(), request.first().blob());
  const absl::StatusOr<hive::HiveReading> second = Read(request.second(), "second");
  if (!second.ok()) return AboutResource(second.status(), request.second().blob());
  LineCollector lines(*response.mutable_lines());
  const hive::HiveDifferences differences =
      hive::DiffTrees(first->tree, second->tree, std::ref(lines),
                      request.include_reg_file() ? kRegFileBytesMax : 0);
  response.set_same(differences.same);
  response.set_lines_left_out(lines.left_out());
  if (request.include_reg_file() && differences.reg_file_is_whole) {
    response.set_reg_file(ValidUtf8(differences.reg_file, kRegFileBytesMax));
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<::grpc::Service> MakeImcService(Host& host, Executor& executor) {
  return std::make_unique<ImcService>(host, executor);
}

}  // namespace vmbfs::rpc
