// Bytes of a guest, a VMM or a caller, made fit for a log line or a terminal.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vmbfs::log {

inline constexpr size_t kEscapedBytesMax = 512;

// `bytes` with everything but printable ASCII as C escapes, in one line. What is
// longer than `bytes_max` is cut, and the cut is shown.
std::string Escape(std::string_view bytes, size_t bytes_max = kEscapedBytesMax);

}  // namespace vmbfs::log
