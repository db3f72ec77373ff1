// The control plane's server: all services of this project on one Unix socket.

#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>

#include "absl/status/statusor.h"
#include "core/host/host.h"

namespace vmbfs::rpc {

// Of one message in; content comes in chunks below it.
inline constexpr int kReceiveBytesMax = 4 << 20;
// Of one call's metadata.
inline constexpr int kMetadataBytesMax = 8 << 10;
inline constexpr int kStreamsPerConnectionMax = 128;
struct ServerOptions {
  std::filesystem::path socket_path;
  unsigned threads = 4;    // that answer calls
  size_t calls_max = 256;  // waiting or being answered
  std::chrono::milliseconds shutdown_max{5000};
  // A client that pings more often, with or without a call, is sent away.
  std::chrono::milliseconds client_ping_interval_min{5000};
};

// Thread safety: none; one thread makes and destroys it.
class Server {
 public:
  // Serves `host` on a socket of mode 0600; when it returns, clients can
  // connect. A socket that nobody listens on any more is replaced. The process's
  // umask is 0077 for the moment of binding.
  // REQUIRES: `host` outlives the server.
  //
  // Errors:
  //   kFailedPrecondition  another process listens on the socket, or the path is
  //                        something else than a socket.
  //   kInvalidArgument     the path is too long for a socket.
  //   kInternal            it cannot be bound.
  static absl::StatusOr<std::unique_ptr<Server>> Start(Host& host, const ServerOptions& options);

  // Takes no more calls, gives those under way `shutdown_max` to end, and
  // removes the socket.
  virtual ~Server() = default;
};

}  // namespace vmbfs::rpc
