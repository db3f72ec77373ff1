// Single lines of `.reg` files.
//
// Thread safety: any thread.

#pragma once

#include <string>
#include <string_view>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

inline constexpr char kRegFileHeader[] = "Windows Registry Editor Version 5.00\n";

// "[HKEY_LOCAL_MACHINE\PATH]"; with `deletion` "[-HKEY_…]". A comment for a key
// whose name no line can hold. REQUIRES: not the root.
std::string RegKeyLine(const RegistryTree& tree, RegistryTree::KeyId id, bool deletion = false);

// `"NAME"=DATA`; with `deletion` `"NAME"=-`. A comment likewise.
std::string RegValueLine(const RegistryValue& value, bool deletion = false);

}  // namespace vmbfs::hive
