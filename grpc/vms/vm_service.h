// vmbfs.v1.VmService over the host.

#pragma once

#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

inline constexpr int kPageSizeDefault = 100;
inline constexpr int kPageSizeMax = 500;

// REQUIRES: `host` and `executor` outlive the service.
std::unique_ptr<::grpc::Service> MakeVmService(Host& host, Executor& executor);

}  // namespace vmbfs::rpc
