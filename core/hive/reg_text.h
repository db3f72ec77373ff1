// Single lines of `.reg` files.
//
// Thread safety: any thread.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// Of the text that is made of one hive.
inline constexpr size_t kRegTextBytesMax = size_t{256} << 20;

inline constexpr char kRegFileHeader[] = "Windows Registry Editor Version 5.00\n";

// Whether lines can hold the names of a key and of all above it. Where they cannot,
// nothing may follow its line: it would belong to the key before.
bool PathFitsALine(const RegistryTree& tree, RegistryTree::KeyId id);

// "[HKEY_LOCAL_MACHINE\PATH]"; with `deletion` "[-HKEY_…]". A comment for a key
// whose name no line can hold. REQUIRES: not the root.
std::string RegKeyLine(const RegistryTree& tree, RegistryTree::KeyId id, bool deletion = false);

// `"NAME"=DATA`; with `deletion` `"NAME"=-`. A comment likewise.
std::string RegValueLine(const RegistryValue& value, bool deletion = false);

}  // namespace vmbfs::hive
