// Hives that together have every form that the writer makes: for tests that hold
// our bytes against other readers.

#pragma once

#include <string>
#include <vector>

#include "core/hive/hive_writer.h"
#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

struct TestHive {
  std::string name;
  RegistryTree tree;
  HiveWriteOptions options = {};
};

std::vector<TestHive> TestHives();

}  // namespace vmbfs::hive
