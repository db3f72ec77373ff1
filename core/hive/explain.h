// What a hive will do to the machine that takes it, in words.
//
// Thread safety: any thread.

#pragma once

#include <string>
#include <vector>

#include "core/hive/line_sink.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// One line of UTF-8 text for each value, and for each key that only exists, in
// the order of the tree; control characters are escaped. Where the meaning of a
// value is known it is said, otherwise the line says what is set.
// A large hive's lines are far larger than the hive: they go to `line` one by one.
void ExplainHive(const RegistryTree& tree, const LineSink& line);
// The same for hives that are known to be small.
std::vector<std::string> ExplainHive(const RegistryTree& tree);

}  // namespace vmbfs::hive
