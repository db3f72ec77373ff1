// The way of every unary call: gRPC's callback thread hands it to the executor,
// which does the work and finishes the call.

#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "grpc/convert/status.h"
#include "grpc/executor/executor.h"

namespace vmbfs::rpc {

// Runs `work`, a function that fills the response and returns an absl::Status,
// on the executor and finishes the call with its result. A call that was
// cancelled, or whose deadline passed, while it waited has no effect.
//
// `resource` names what the call is about in errors; it may lie in the request.
// Errors: kResourceExhausted ("SERVER_BUSY") when too many calls wait.
template <typename Work>
::grpc::ServerUnaryReactor* RunUnary(Executor& executor, ::grpc::CallbackServerContext* context,
                                     std::string_view resource, Work work) {
  ::grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool taken = executor.TryPost([context, reactor, resource, work = std::move(work)] {
    if (context->IsCancelled()) {
      reactor->Finish(::grpc::Status::CANCELLED);
      return;
    }
    reactor->Finish(ToGrpcStatus(work(), resource));
  });
  if (!taken) reactor->Finish(ToGrpcStatus(BusyError(), resource));
  return reactor;
}

}  // namespace vmbfs::rpc
