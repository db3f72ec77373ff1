#include "grpc/library/library.h"

#include <grpc/grpc.h>

namespace vmbfs::rpc {

void KeepGrpcLibrary() {
  [[maybe_unused]] static const bool kept = [] {
    ::grpc_init();
    return true;
  }();
}

}  // namespace vmbfs::rpc
