// The daemon's command line and configuration file.

#pragma once

#include <filesystem>
#include <iosfwd>
#include <optional>
#include <string>
#include <variant>

#include "core/host/host.h"

namespace vmbfs {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

struct DaemonOptions {
  HostOptions host;
  std::string log_level = "info";
};

// The options, or the exit code when there is nothing to run: help and version
// are written to `out`, what is wrong to `err`.
std::variant<DaemonOptions, int> ParseDaemonOptions(int argc, const char* const* argv,
                                                    std::ostream& out, std::ostream& err);

}  // namespace vmbfs
