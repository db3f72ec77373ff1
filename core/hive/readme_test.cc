// The worked example of README.md is what the writer makes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/hive/hive_builder.h"
#include "core/hive/hive_writer.h"

namespace vmbfs::hive {
namespace {

// Of the security descriptor the page says what it means, and not each byte.
constexpr size_t kDescriptorStart = 0x1090;
constexpr size_t kDescriptorEnd = 0x1120;

bool IsHex(const std::string& word, size_t digits) {
  return word.size() == digits && word.find_first_not_of("0123456789abcdef") == std::string::npos;
}

// "1020  a8 ff ff ff   words": the bytes are words of two digits, up to the first
// that is none.
struct Line {
  size_t position = 0;
  std::vector<std::byte> bytes;
};

std::vector<Line> ExampleLines() {
  std::ifstream page("core/hive/README.md");
  std::vector<Line> lines;
  std::string text;
  while (std::getline(page, text) && text != "## A hive of one value, byte by byte") {
  }
  while (std::getline(page, text)) {
    std::istringstream words(text.substr(0, 33));  // what follows is prose
    std::string word;
    if (!(words >> word) || !IsHex(word, 4)) continue;
    Line line{.position = std::stoul(word, nullptr, 16), .bytes = {}};
    while (words >> word && IsHex(word, 2)) {
      line.bytes.push_back(static_cast<std::byte>(std::stoul(word, nullptr, 16)));
    }
    lines.push_back(line);
  }
  return lines;
}

TEST(HiveReadmeTest, TheExampleHasTheBytesOfTheWriterAndAllThatAreNotZero) {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 2);
  const std::vector<std::byte> bytes = WriteHive(hive.tree())->bytes;
  ASSERT_EQ(bytes.size(), 8192u);
  std::vector<std::byte> shown(bytes.size());
  const std::vector<Line> lines = ExampleLines();
  EXPECT_GT(lines.size(), 30u);
  for (const Line& line : lines) {
    ASSERT_FALSE(line.bytes.empty()) << line.position;
    ASSERT_LE(line.position + line.bytes.size(), shown.size());
    std::copy(line.bytes.begin(), line.bytes.end(), shown.begin() + line.position);
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i >= kDescriptorStart && i < kDescriptorEnd) continue;
    ASSERT_EQ(shown[i], bytes[i]) << std::hex << i;
  }
}

}  // namespace
}  // namespace vmbfs::hive
