#include "grpc/health/health_service.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "grpc/convert/status.h"

namespace vmbfs::rpc {

using ::grpc::health::v1::HealthCheckRequest;
using ::grpc::health::v1::HealthCheckResponse;

// One Watch stream: writes the status whenever it is another one than the last
// written, and finishes once the service stopped or the caller went away.
class HealthService::Watcher final : public ::grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService& health, std::string service)
      : health_(health), service_(std::move(service)) {}

  // Starts the next step when none is under way.
  void Advance() {
    std::optional<Status> to_write;
    {
      MutexLock lock(health_.mutex_);
      if (writing_ || finished_) return;
      const Status current = health_.StatusOf(service_);
      if (!cancelled_ && written_ != current) {
        writing_ = true;
        written_ = current;
        to_write = current;
      } else if (cancelled_ || health_.stopped_) {
        finished_ = true;
      } else {
        return;
      }
    }
    if (to_write) {
      response_.set_status(*to_write);
      StartWrite(&response_);
    } else {
      Finish(ToGrpcStatus(absl::UnavailableError("the server is stopping"), service_));
    }
  }

  void OnWriteDone(bool written) override {
    {
      MutexLock lock(health_.mutex_);
      writing_ = false;
      cancelled_ |= !written;
    }
    Advance();
  }

  void OnCancel() override {
    {
      MutexLock lock(health_.mutex_);
      cancelled_ = true;
    }
    Advance();
  }

  void OnDone() override {
    std::shared_ptr<Watcher> self;  // outlives the lock
    MutexLock lock(health_.mutex_);
    const auto found = health_.watchers_.find(this);
    self = std::move(found->second);
    health_.watchers_.erase(found);
  }

 private:
  HealthService& health_;
  const std::string service_;
  HealthCheckResponse response_;
  // Guarded by the service's mutex.
  std::optional<Status> written_;
  bool writing_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

HealthService::HealthService(const std::vector<std::string>& services) {
  services_[""] = HealthCheckResponse::SERVING;
  for (const std::string& service : services) services_[service] = HealthCheckResponse::SERVING;
}

HealthService::~HealthService() = default;

void HealthService::Stop() {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    for (auto& [name, status] : services_) status = HealthCheckResponse::NOT_SERVING;
    for (const auto& [key, watcher] : watchers_) watchers.push_back(watcher);
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Advance();
}

::grpc::ServerUnaryReactor* HealthService::Check(::grpc::CallbackServerContext* context,
                                                 const HealthCheckRequest* request,
                                                 HealthCheckResponse* response) {
  Status status{};
  {
    MutexLock lock(mutex_);
    status = StatusOf(request->service());
  }
  ::grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(
        ToGrpcStatus(absl::NotFoundError("there is no such service"), request->service()));
    return reactor;
  }
  response->set_status(status);
  reactor->Finish(::grpc::Status::OK);
  return reactor;
}

::grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    ::grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  class Refusal final : public ::grpc::ServerWriteReactor<HealthCheckResponse> {
   public:
    Refusal() { Finish(ToGrpcStatus(BusyError(), "")); }
    void OnDone() override { delete this; }
  };

  auto watcher = std::make_shared<Watcher>(*this, request->service());
  {
    MutexLock lock(mutex_);
    if (watchers_.size() >= kWatchersMax) return new Refusal;
    watchers_[watcher.get()] = watcher;
  }
  watcher->Advance();
  return watcher.get();
}

HealthService::Status HealthService::StatusOf(const std::string& service) const {
  const auto found = services_.find(service);
  return found == services_.end() ? HealthCheckResponse::SERVICE_UNKNOWN : found->second;
}

}  // namespace vmbfs::rpc
