// Inputs as registry.pol files: what is accepted makes a hive that reads as the same keys and
// values; what is refused says where.
//
// Input: the file.

#include <cstddef>
#include <cstdint>

#include "core/hive/input_oracle.h"
#include "core/hive/policy_file.h"
#include "core/hive/registry_tree.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {
namespace {

using hyperv::Require;

// No more of names and data than the file has bytes: nothing is invented.
void RequireNoMoreThan(size_t file_bytes, const RegistryTree& tree) {
  size_t data_bytes = 0;
  for (const RegistryTree::KeyId id : tree.KeysInOrder()) {
    if (id == RegistryTree::kRoot) continue;
    for (const RegistryValue& value : tree.key(id).values) data_bytes += value.data.size();
  }
  Require(data_bytes <= file_bytes, "data is the file's");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  RequireOfFile(AddPolicyFile, data, size,
                [size](const RegistryTree& tree) { RequireNoMoreThan(size, tree); });
  return 0;
}

}  // namespace vmbfs::hive
