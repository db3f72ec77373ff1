// What a hive will do to the machine that takes it, in words.
//
// Thread safety: any thread.

#pragma once

#include <string>
#include <vector>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// One line of UTF-8 text for each value, and for each key that only exists, in
// the order of the tree; control characters are escaped. Where the meaning of a
// value is known it is said, otherwise the line says what is set.
std::vector<std::string> ExplainHive(const RegistryTree& tree);

}  // namespace vmbfs::hive
