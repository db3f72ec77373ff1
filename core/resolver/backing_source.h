// A backing as it is described and stored, before anything of it is opened.

#pragma once

#include <cstdint>
#include <string>

namespace vmbfs {

// Thread safety: a value.
struct BackingSource {
  std::string kind;    // a name registered with the Resolver: "blob"
  std::string sha256;  // 64 lower-case hex digits
  uint64_t size_bytes = 0;
  std::string file_name;  // what the guest sees

  bool operator==(const BackingSource&) const = default;
};

}  // namespace vmbfs
