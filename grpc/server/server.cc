#include "grpc/server/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grpc/attachments/attachment_service.h"
#include "grpc/blobs/blob_service.h"
#include "grpc/executor/executor.h"
#include "grpc/health/health_service.h"
#include "grpc/imc/imc_service.h"
#include "grpc/inspect/inspect_service.h"
#include "grpc/library/library.h"
#include "grpc/server/server_limits.h"
#include "grpc/server/socket_path.h"
#include "grpc/vms/vm_service.h"

namespace vmbfs::rpc {
namespace {

// One: to put two hives of the largest size in words takes up to 1 GiB for seconds.
constexpr unsigned kHiveThreads = 1;
constexpr size_t kHiveCallsMax = 64;  // waiting or being answered

class GrpcServer final : public Server {
 public:
  GrpcServer(Host& host, const ServerOptions& options)
      : options_(options),
        executor_(options.threads, options.calls_max),
        hive_executor_(kHiveThreads, kHiveCallsMax),
        health_({"vmbfs.v1.VmService", "vmbfs.v1.AttachmentService", "vmbfs.v1.BlobService",
                 "vmbfs.v1.ImcService", "vmbfs.v1.InspectService"}) {
    services_.push_back(MakeVmService(host, executor_));
    services_.push_back(MakeAttachmentService(host, executor_, hive_executor_));
    services_.push_back(MakeBlobService(host, executor_));
    services_.push_back(MakeImcService(host, hive_executor_));
    services_.push_back(MakeInspectService(host, executor_));
  }

  ~GrpcServer() override {
    if (server_ == nullptr) return;
    health_.Stop();
    server_->Shutdown(std::chrono::system_clock::now() + options_.shutdown_max);
    ::unlink(options_.socket_path.c_str());
  }

  absl::Status Listen() {
    ::grpc::ServerBuilder builder;
    SetServerLimits(builder, options_);
    for (const std::unique_ptr<::grpc::Service>& service : services_) {
      builder.RegisterService(service.get());
    }
    builder.RegisterService(&health_);
    int bound = 0;
    builder.AddListeningPort(absl::StrCat("unix:", options_.socket_path.native()),
                             ::grpc::InsecureServerCredentials(), &bound);
    // Nobody else may connect, not even before the mode is set.
    const mode_t umask_before = ::umask(0077);
    server_ = builder.BuildAndStart();
    ::umask(umask_before);
    if (server_ == nullptr || bound == 0) {
      return absl::InternalError(
          absl::StrCat(options_.socket_path.native(), ": cannot listen; is the folder there?"));
    }
    if (::chmod(options_.socket_path.c_str(), 0600) != 0) {
      return absl::InternalError(absl::StrCat(options_.socket_path.native(),
                                              ": chmod: ", std::generic_category().message(errno)));
    }
    return absl::OkStatus();
  }

 private:
  const ServerOptions options_;
  // In this order: services use the executors, the server uses both.
  Executor executor_;
  Executor hive_executor_;
  HealthService health_;
  std::vector<std::unique_ptr<::grpc::Service>> services_;
  std::unique_ptr<::grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(Host& host, const ServerOptions& options) {
  if (absl::Status cleared = ClearSocketPath(options.socket_path); !cleared.ok()) return cleared;
  KeepGrpcLibrary();
  ::grpc::EnableDefaultHealthCheckService(false);
  ::grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  auto server = std::make_unique<GrpcServer>(host, options);
  if (absl::Status listening = server->Listen(); !listening.ok()) return listening;
  return server;
}

}  // namespace vmbfs::rpc
