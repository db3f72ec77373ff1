// vmbfs.v1.InspectService over the host.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

inline constexpr int32_t kInspectDepthDefault = 1;
inline constexpr int32_t kInspectDepthMax = 32;
// What every gRPC client takes unless it is told otherwise is 4 MiB.
inline constexpr size_t kInspectBytesMax = 3 << 20;

// REQUIRES: `host` and `executor` outlive the service.
std::unique_ptr<::grpc::Service> MakeInspectService(Host& host, Executor& executor);

}  // namespace vmbfs::rpc
