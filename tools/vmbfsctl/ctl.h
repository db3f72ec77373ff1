// vmbfsctl as a function.

#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace vmbfs::ctl {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitUnreachable = 4;  // or timed out

// Runs one command line (without the program's name) and returns the exit code.
// Data goes to `out`, everything else to `err`.
int RunCtl(std::vector<std::string> arguments, std::ostream& out, std::ostream& err);

}  // namespace vmbfs::ctl
