// `vmbfsctl imc …`: hives made, checked, explained and compared in this process,
// without a daemon.

#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <iosfwd>

namespace vmbfs::ctl {

// Returns the exit code. Data goes to `out`, everything else to `err`.
using LocalCommand = std::function<int(std::ostream& out, std::ostream& err)>;

// Adds the commands; the one that a command line names is put into `chosen`,
// which must live as long as `app`.
void AddImcCommands(CLI::App& app, LocalCommand& chosen);

}  // namespace vmbfs::ctl
