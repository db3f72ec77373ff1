// How two trees of keys differ.
//
// Thread safety: any thread.

#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/hive/line_sink.h"
#include "core/hive/reg_text.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

struct HiveDifferences {
  bool same = true;
  // Those that went to no sink.
  std::vector<std::string> lines;
  // `.reg` text that leads from the first to the second; it may delete, which
  // regedit does and an IMC hive cannot. The root's own values are left out.
  std::string reg_file;
  bool reg_file_is_whole = true;  // false: it ends where its bound was reached
};

// For people, `line` gets one a value, or a key that one side lacks: "+ PATH\NAME =
// DATA" is in the second only, "- …" in the first only, "~ …: DATA -> DATA" in both.
//
// Names are compared without regard to case; what differs in that alone, or in
// the order of values, is the same. At most `reg_bytes_max` bytes of `.reg` text are
// made: a deep hive's is thousands of times its own size.
HiveDifferences DiffTrees(const RegistryTree& first, const RegistryTree& second,
                          const LineSink& line, size_t reg_bytes_max = kRegTextBytesMax);
// The same for trees that are known to be small: the lines are in the answer.
HiveDifferences DiffTrees(const RegistryTree& first, const RegistryTree& second,
                          size_t reg_bytes_max = kRegTextBytesMax);

}  // namespace vmbfs::hive
