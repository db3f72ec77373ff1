// grpc.health.v1.Health, implemented here because the one built into gRPC
// cannot be described through reflection.

#pragma once

#include <grpcpp/support/server_callback.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/mutex/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace vmbfs::rpc {

// Thread safety: any thread. The lock is never held while gRPC is called.
// Bounds: kWatchersMax streams; one more is refused.
class HealthService final : public ::grpc::health::v1::Health::CallbackService {
 public:
  static constexpr size_t kWatchersMax = 256;

  // `services` by their full names are serving, and so is the server ("").
  explicit HealthService(const std::vector<std::string>& services);
  ~HealthService() override;

  // Tells every watcher that nothing is serving any more, and ends its stream.
  void Stop() VMBFS_EXCLUDES(mutex_);

  ::grpc::ServerUnaryReactor* Check(::grpc::CallbackServerContext* context,
                                    const ::grpc::health::v1::HealthCheckRequest* request,
                                    ::grpc::health::v1::HealthCheckResponse* response) override
      VMBFS_EXCLUDES(mutex_);

  ::grpc::ServerWriteReactor<::grpc::health::v1::HealthCheckResponse>* Watch(
      ::grpc::CallbackServerContext* context,
      const ::grpc::health::v1::HealthCheckRequest* request) override VMBFS_EXCLUDES(mutex_);

 private:
  class Watcher;
  using Status = ::grpc::health::v1::HealthCheckResponse::ServingStatus;

  Status StatusOf(const std::string& service) const VMBFS_REQUIRES(mutex_);

  Mutex mutex_;
  std::map<std::string, Status> services_ VMBFS_GUARDED_BY(mutex_);
  bool stopped_ VMBFS_GUARDED_BY(mutex_) = false;
  std::map<Watcher*, std::shared_ptr<Watcher>> watchers_ VMBFS_GUARDED_BY(mutex_);
};

}  // namespace vmbfs::rpc
