// vmbfs.v1.ImcService over core/hive and the host.

#pragma once

#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

// A call's memory is bounded by kInputsBytesMax and the limits of core/hive, its
// time grows with them: `executor` should be one that other calls do not need.
// REQUIRES: `host` and `executor` outlive the service.
std::unique_ptr<::grpc::Service> MakeImcService(Host& host, Executor& executor);

}  // namespace vmbfs::rpc
