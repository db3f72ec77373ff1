// vmbfsd: one daemon per host. Exit codes: 0 ended by a signal, 1 failed,
// 2 usage.

#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/log/log.h"
#include "grpc/server/server.h"
#include "hyperv/guest_memory/guest_access.h"
#include "tools/vmbfsd/options.h"

namespace vmbfs {
namespace {

int Fail(const absl::Status& status, int exit_code) {
  std::cerr << "vmbfsd: " << status.message() << std::endl;
  return exit_code;
}

// Serves until one of `end_signals`, which every thread has blocked, comes.
int Serve(const DaemonOptions& options, const sigset_t& end_signals) {
  const absl::StatusOr<std::unique_ptr<Host>> host = Host::Start(options.host);
  if (!host.ok()) return Fail(host.status(), kExitFailed);

  rpc::ServerOptions server_options;
  server_options.socket_path = options.host.runtime_dir / "admin.sock";
  const absl::StatusOr<std::unique_ptr<rpc::Server>> server =
      rpc::Server::Start(**host, server_options);
  if (!server.ok()) return Fail(server.status(), kExitFailed);

  std::cerr << "vmbfsd: ready" << std::endl;
  int signal_number = 0;
  ::sigwait(&end_signals, &signal_number);
  return kExitDone;
}

// A VM needs a few descriptors, and the usual soft limit is for small programs.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  // What the daemon makes is its own user's alone, unless it says otherwise.
  ::umask(0077);
  RaiseDescriptorLimit();
  std::signal(SIGPIPE, SIG_IGN);
  hyperv::InstallVanishedMemoryHandler();
  sigset_t end_signals;
  ::sigemptyset(&end_signals);
  ::sigaddset(&end_signals, SIGTERM);
  ::sigaddset(&end_signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &end_signals, nullptr);  // before there is a thread to take one

  const std::variant<DaemonOptions, int> parsed =
      ParseDaemonOptions(argc, argv, std::cout, std::cerr);
  if (const int* exit_code = std::get_if<int>(&parsed)) return *exit_code;
  const DaemonOptions& options = std::get<DaemonOptions>(parsed);
  if (absl::Status logs = log::SetUpDefaultLogger(options.log_level); !logs.ok()) {
    return Fail(logs, kExitUsage);
  }
  return Serve(options, end_signals);
}

}  // namespace
}  // namespace vmbfs

int main(int argc, char** argv) { return vmbfs::Main(argc, argv); }
