#include "tests/bench/bare_echo.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grpc/server/server.h"
#include "grpc/server/server_limits.h"
#include "vmbfs/v1/vm.grpc.pb.h"

namespace vmbfs::bench {
namespace {

class EchoServer final : public BareEcho, private v1::VmService::CallbackService {
 public:
  explicit EchoServer(v1::Vm answer) : answer_(std::move(answer)) {}
  ~EchoServer() override {
    if (server_ != nullptr) server_->Shutdown();
  }

  absl::Status Listen(const std::string& socket_path) {
    ::grpc::EnableDefaultHealthCheckService(false);
    ::grpc::ServerBuilder builder;
    rpc::SetServerLimits(builder, rpc::ServerOptions{});
    builder.RegisterService(static_cast<v1::VmService::CallbackService*>(this));
    int bound = 0;
    builder.AddListeningPort(absl::StrCat("unix:", socket_path),
                             ::grpc::InsecureServerCredentials(), &bound);
    server_ = builder.BuildAndStart();
    if (server_ != nullptr && bound != 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(socket_path, ": cannot listen"));
  }

 private:
  ::grpc::ServerUnaryReactor* GetVm(::grpc::CallbackServerContext* context, const v1::GetVmRequest*,
                                    v1::Vm* response) override {
    *response = answer_;
    ::grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(::grpc::Status::OK);
    return reactor;
  }

  const v1::Vm answer_;
  std::unique_ptr<::grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BareEcho>> BareEcho::Start(const std::string& socket_path,
                                                          v1::Vm answer) {
  auto server = std::make_unique<EchoServer>(std::move(answer));
  if (absl::Status status = server->Listen(socket_path); !status.ok()) return status;
  return server;
}

}  // namespace vmbfs::bench
