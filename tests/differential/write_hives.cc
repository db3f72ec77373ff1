// Writes every test hive into a folder, and beside it what is in it: NAME.hiv,
// and NAME.txt with a line a key and a line a value, all text in hexadecimal.
//
//   write_hives FOLDER
//
//   K PATH                        names of UTF-16LE, `/` between them
//   V PATH NAME TYPE DATA

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "core/hive/hive_builder.h"
#include "core/hive/hive_writer.h"
#include "core/hive/test_hives.h"

namespace vmbfs::hive {
namespace {

std::string Hex(const std::vector<std::byte>& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string PathHex(const RegistryTree& tree, RegistryTree::KeyId id) {
  std::string path;
  for (; id != RegistryTree::kRoot; id = tree.key(id).parent) {
    path = absl::StrCat("/", Hex(Utf16(tree.key(id).name)), path);
  }
  return path.empty() ? "/" : path;
}

std::string ListOf(const RegistryTree& tree) {
  std::string lines;
  for (const RegistryTree::KeyId id : tree.KeysInOrder()) {
    const std::string path = PathHex(tree, id);
    absl::StrAppend(&lines, "K ", path, "\n");
    for (const RegistryValue& value : tree.key(id).values) {
      absl::StrAppend(&lines, "V ", path, " ", Hex(Utf16(value.name)), " ",
                      static_cast<uint32_t>(value.type), " ", Hex(value.data), "\n");
    }
  }
  return lines;
}

bool WriteFile(const std::string& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  return static_cast<bool>(file.flush());
}

int WriteAll(const std::string& folder) {
  for (const TestHive& hive : TestHives()) {
    const auto written = WriteHive(hive.tree, hive.options);
    const std::string path = absl::StrCat(folder, "/", hive.name);
    if (!written.ok() ||
        !WriteFile(path + ".hiv",
                   absl::string_view(reinterpret_cast<const char*>(written->bytes.data()),
                                     written->bytes.size())) ||
        !WriteFile(path + ".txt", ListOf(hive.tree))) {
      std::fprintf(stderr, "write_hives: %s failed\n", path.c_str());
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace vmbfs::hive

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_hives FOLDER\n");
    return 2;
  }
  return vmbfs::hive::WriteAll(argv[1]);
}
