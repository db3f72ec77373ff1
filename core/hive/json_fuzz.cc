// Inputs as JSON text: what is accepted makes a hive that reads as the same keys and
// values; what is refused says where.
//
// Input: the file.

#include <cstddef>
#include <cstdint>

#include "core/hive/input_oracle.h"
#include "core/hive/json_file.h"
#include "core/hive/registry_tree.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {
namespace {

using hyperv::Require;

// Exported and added again it is the same.
void RequireSameFromText(const RegistryTree& tree) {
  const auto text = JsonFileOf(tree);
  Require(text.ok(), "what is small can be exported");
  const RegistryTree again = TreeOfExport(AddJsonFile, *text);
  Require(JsonFileOf(again).value() == *text, "and exported as the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  RequireOfFile(AddJsonFile, data, size, RequireSameFromText);
  return 0;
}

}  // namespace vmbfs::hive
