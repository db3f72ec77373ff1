// vmbfs.v1.AttachmentService over the host.

#pragma once

#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

// REQUIRES: `host` and `executor` outlive the service.
std::unique_ptr<::grpc::Service> MakeAttachmentService(Host& host, Executor& executor);

}  // namespace vmbfs::rpc
