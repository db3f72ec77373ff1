// What the control plane's server takes from a connection, as gRPC's options.

#pragma once

#include <grpcpp/server_builder.h>

#include "grpc/server/server.h"

namespace vmbfs::rpc {

// Also for a bare server that is measured beside ours (tests/bench).
void SetServerLimits(::grpc::ServerBuilder& builder, const ServerOptions& options);

}  // namespace vmbfs::rpc
