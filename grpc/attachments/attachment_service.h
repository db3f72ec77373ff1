// vmbfs.v1.AttachmentService over the host.

#pragma once

#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

// What is given to imc is read as a hive, on `hive_executor`.
// REQUIRES: all three outlive the service.
std::unique_ptr<::grpc::Service> MakeAttachmentService(Host& host, Executor& executor,
                                                       Executor& hive_executor);

}  // namespace vmbfs::rpc
