#include "tools/vmbfsd/options.h"

#include <CLI/CLI.hpp>
#include <ostream>
#include <string>

#include "tools/version/version.h"

namespace vmbfs {
namespace {

constexpr unsigned kThreadsMax = 256;
constexpr unsigned kSpinUsMax = 1'000'000;

void AddOptions(CLI::App& app, DaemonOptions& options) {
  HostOptions& host = options.host;
  app.add_option("--state-dir", host.state_dir,
                 "Folder for what survives a restart; made if missing")
      ->required();
  app.add_option("--runtime-dir", host.runtime_dir,
                 "Folder for sockets: admin.sock, and vm/NAME.sock for each VM")
      ->required();
  app.add_option("--log-level", options.log_level,
                 "trace, debug, info, warning, error, critical or off")
      ->capture_default_str();
  app.add_option("--boot-bytes-max", host.boot_bytes_max, "The largest file on a boot device")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--rdma-bytes-min", host.rdma_bytes_min,
                 "Offer guests RDMA reads of files of at least this size; 0: never")
      ->capture_default_str();
  app.add_option("--data-plane-threads", host.data_plane_threads,
                 "Threads that serve guests; 0: one a core, at most 8")
      ->check(CLI::Range(0u, kThreadsMax))
      ->capture_default_str();
  app.add_option("--spin-us", host.spin_us,
                 "How long a thread looks for a guest's next request before it sleeps, in "
                 "microseconds; 0: not at all")
      ->check(CLI::Range(0u, kSpinUsMax))
      ->capture_default_str();
  app.add_option("--spin-percent", host.spin_percent,
                 "How much of a core each thread may spend on looking in vain, over any second")
      ->check(CLI::Range(0u, 100u))
      ->capture_default_str();
  app.add_option("--blocking-threads", host.blocking_threads, "Threads that wait for the disk")
      ->check(CLI::Range(1u, kThreadsMax))
      ->capture_default_str();
  app.set_config("--config", "", "File with the same options: state-dir = \"/var/lib/vmbfs\"");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_version_flag("--version", std::string("vmbfsd ") + kVersion);
}

}  // namespace

std::variant<DaemonOptions, int> ParseDaemonOptions(int argc, const char* const* argv,
                                                    std::ostream& out, std::ostream& err) {
  CLI::App app{
      "Serves the vmbfs channels of this host's VMs, and its control plane on "
      "RUNTIME-DIR/admin.sock.",
      "vmbfsd"};
  DaemonOptions options;
  AddOptions(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    app.exit(asked, out, err);
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    err << "vmbfsd: " << error.what() << "\nvmbfsd: see vmbfsd --help\n";
    return kExitUsage;
  }
  return options;
}

}  // namespace vmbfs
