#include "grpc/inspect/inspect_service.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/convert/status.h"
#include "grpc/convert/views.h"
#include "grpc/executor/unary_call.h"
#include "vmbfs/v1/inspect.grpc.pb.h"

namespace vmbfs::rpc {
namespace {

class InspectService final : public v1::InspectService::CallbackService {
 public:
  InspectService(Host& host, Executor& executor) : host_(host), executor_(executor) {}

 private:
  ::grpc::ServerUnaryReactor* Inspect(::grpc::CallbackServerContext* context,
                                      const v1::InspectRequest* request,
                                      v1::InspectResponse* response) override {
    return RunUnary(executor_, context, request->path(),
                    [=, this] { return Show(*request, *response); });
  }

  absl::Status Show(const v1::InspectRequest& request, v1::InspectResponse& response) {
    const int32_t depth = request.has_depth() ? request.depth() : kInspectDepthDefault;
    if (depth < 0 || depth > kInspectDepthMax) {
      return FieldError("depth", "DEPTH_INVALID",
                        absl::StrCat("depth is ", depth, ": give 0 to ", kInspectDepthMax));
    }
    const absl::StatusOr<inspect::Node> node =
        host_.Inspect(request.path(), static_cast<uint32_t>(depth));
    if (!node.ok()) return AboutField(node.status(), "path");
    *response.mutable_node() = ToProto(*node);
    if (response.ByteSizeLong() <= kInspectBytesMax) return absl::OkStatus();
    response.Clear();
    return HostError(absl::StatusCode::kResourceExhausted, "ANSWER_TOO_LARGE",
                     "the answer is too large: ask for a longer path or less depth");
  }

  Host& host_;
  Executor& executor_;
};

}  // namespace

std::unique_ptr<::grpc::Service> MakeInspectService(Host& host, Executor& executor) {
  return std::make_unique<InspectService>(host, executor);
}

}  // namespace vmbfs::rpc
