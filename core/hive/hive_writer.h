// Hives from trees of keys: deterministic, in time that grows with the input.
//
// The same tree gives the same bytes on every machine. Format: hive_format.h,
// README.md. The layout is that of Microsoft's Offline Registry library.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

inline constexpr size_t kValueBytesMaxDefault = size_t{1} << 20;
inline constexpr size_t kHiveBytesMaxDefault = size_t{16} << 20;

// 2020-01-01T00:00:00Z in units of 100 ns since 1601, for each key.
inline constexpr uint64_t kKeyFiletime = 132'223'104'000'000'000;

struct HiveWriteOptions {
  size_t value_bytes_max = kValueBytesMaxDefault;
  size_t hive_bytes_max = kHiveBytesMaxDefault;  // the file's size; at most 2 GiB
  uint64_t key_filetime = kKeyFiletime;
  // Marks the file as the Offline Registry library's, with the time it was
  // written: for comparing with files that this library made.
  std::optional<uint64_t> offline_registry_filetime = std::nullopt;
};

struct WrittenHive {
  std::vector<std::byte> bytes;
  // Where it leaves what Microsoft's own hives use: legal, and untried.
  std::vector<std::string> warnings;
};

// Thread safety: any thread.
// Bounds: memory of about the hive's size and 16 bytes a key.
// Errors: kInvalidArgument    a value's data is larger than options say; the
//                             message has its path.
//         kResourceExhausted  the hive gets larger than options say.
absl::StatusOr<WrittenHive> WriteHive(const RegistryTree& tree,
                                      const HiveWriteOptions& options = {});

}  // namespace vmbfs::hive
