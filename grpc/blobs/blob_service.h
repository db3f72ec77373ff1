// vmbfs.v1.BlobService over the host's blob store.

#pragma once

#include <memory>

#include "core/host/host.h"
#include "grpc/executor/executor.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace vmbfs::rpc {

// Uploads at a time; one more is refused with "SERVER_BUSY".
inline constexpr int kUploadsMax = 16;

// REQUIRES: `host` and `executor` outlive the service.
std::unique_ptr<::grpc::Service> MakeBlobService(Host& host, Executor& executor);

}  // namespace vmbfs::rpc
