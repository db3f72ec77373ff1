// Where texts about hives go, a line at a time.

#pragma once

#include <functional>
#include <string>

namespace vmbfs::hive {

// Takes a line of UTF-8 without its end.
using LineSink = std::function<void(const std::string& line)>;

}  // namespace vmbfs::hive
