// Inputs as `.reg` text: what is accepted makes a hive that reads as the same keys and
// values; what is refused says where.
//
// Input: the file.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "core/hive/input_oracle.h"
#include "core/hive/reg_file.h"
#include "core/hive/registry_tree.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {
namespace {

using hyperv::Require;

// Exported and added again it is the same, unless a name did not fit a line.
void RequireSameFromText(const RegistryTree& tree) {
  const std::string utf8 = RegFileOf(tree).value();
  if (absl::StrContains(utf8, "is left out")) return;
  const RegistryTree again = TreeOfExport(AddRegFile, ForRegedit(utf8));
  Require(RegFileOf(again).value() == utf8, "and exported as the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  RequireOfFile(AddRegFile, data, size, RequireSameFromText);
  return 0;
}

}  // namespace vmbfs::hive
