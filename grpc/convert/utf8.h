// Text for fields of type string, which must be UTF-8.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace vmbfs::rpc {

// `text` as it is where it is valid UTF-8 and no longer than `bytes_max`;
// otherwise escaped to ASCII and cut.
std::string ValidUtf8(std::string_view text, size_t bytes_max);

}  // namespace vmbfs::rpc
