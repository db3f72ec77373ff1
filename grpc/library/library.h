// gRPC's own state in this process.

#pragma once

namespace vmbfs::rpc {

// Keeps gRPC's library up until the process ends. Without it, destroying the
// last channel or server takes the library down, and that waits up to 10 s for
// a thread of gRPC 1.51 that polls on behalf of a large write.
// Thread safety: any thread.
void KeepGrpcLibrary();

}  // namespace vmbfs::rpc
