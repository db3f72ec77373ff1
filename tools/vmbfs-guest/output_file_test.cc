#include "tools/vmbfs-guest/output_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace vmbfs {
namespace {

class OutputFileTest : public testing::Test {
 protected:
  OutputFileTest() : folder_(testing::TempDir() + "/output_file_test." + std::to_string(getpid())) {
    std::filesystem::create_directory(folder_);
  }
  ~OutputFileTest() override { std::filesystem::remove_all(folder_); }

  static std::span<const std::byte> Bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
  }
  static std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t FileCount() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  const std::string folder_;
};

TEST_F(OutputFileTest, NewFileHoldsTheBytesAndTheUsualMode) {
  const std::string path = folder_ + "/new";
  const mode_t mask = umask(022);
  ASSERT_TRUE(WriteFileWhole(path, Bytes("hive")).ok());
  umask(mask);
  EXPECT_EQ(Content(path), "hive");
  EXPECT_EQ(FileCount(), 1u);
  struct stat status{};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0644u);
}

TEST_F(OutputFileTest, LongerExistingFileIsReplacedWhole) {
  const std::string path = folder_ + "/old";
  std::ofstream(path) << "a longer file";
  ASSERT_TRUE(WriteFileWhole(path, Bytes("new")).ok());
  EXPECT_EQ(Content(path), "new");
}

TEST_F(OutputFileTest, DirectoryOrDeviceInThePlaceIsRefusedAndNothingIsLeft) {
  EXPECT_EQ(WriteFileWhole(folder_, Bytes("x")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(WriteFileWhole("/dev/null", Bytes("x")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FileCount(), 0u);
}

TEST_F(OutputFileTest, MissingFolderIsAnError) {
  EXPECT_EQ(WriteFileWhole(folder_ + "/none/file", Bytes("x")).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace vmbfs
