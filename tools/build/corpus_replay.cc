// The main function of a fuzz target's replay: gives the target the empty input
// and then every file of the folder that the first argument names, by name.
// Fails when there is no file. Needs no fuzzing library and any compiler.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

std::vector<std::filesystem::path> FilesIn(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_regular_file(error)) files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " FOLDER\n";
    return 2;
  }
  const std::vector<std::filesystem::path> files = FilesIn(argv[1]);
  if (files.empty()) {
    std::cerr << argv[1] << ": the corpus is empty\n";
    return 1;
  }
  std::cerr << "the empty input" << std::endl;
  const uint8_t nothing = 0;
  LLVMFuzzerTestOneInput(&nothing, 0);
  for (const std::filesystem::path& file : files) {
    // Said before it runs: the last name is the one that ended the process.
    std::cerr << file.filename().string() << std::endl;
    std::ifstream stream(file, std::ios::binary);
    if (!stream) {
      std::cerr << file << ": cannot be read\n";
      return 1;
    }
    // Of exactly its size on the heap: a sanitizer sees a read past it.
    const std::vector<char> bytes(std::istreambuf_iterator<char>(stream), {});
    LLVMFuzzerTestOneInput(
        bytes.empty() ? &nothing
                      : static_cast<const uint8_t*>(static_cast<const void*>(bytes.data())),
        bytes.size());
  }
  std::cerr << files.size() << " files replayed" << std::endl;
  return 0;
}
