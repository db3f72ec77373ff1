#include "core/backing/single_file_backing.h"

#include <gtest/gtest.h>

#include "core/backing/memory_file.h"

namespace vmbfs {
namespace {

class SingleFileBackingTest : public testing::Test {
 protected:
  const File* Find(std::string_view path) {
    return backing_.Find(GuestPath::FromUtf8(path).value());
  }

  std::shared_ptr<const File> file_ = std::make_shared<MemoryFile>(std::vector<std::byte>(10));
  SingleFileBacking backing_{u"imc.hiv", file_, "file imc.hiv, 10 bytes"};
};

TEST_F(SingleFileBackingTest, TheFileIsFoundInAnyLetterCase) {
  for (const char* path : {"imc.hiv", "\\imc.hiv", "/IMC.HIV", "a/../Imc.Hiv", "imc.hiv/"}) {
    EXPECT_EQ(Find(path), file_.get()) << path;
  }
}

TEST_F(SingleFileBackingTest, TheRootIsADirectoryWithoutBytes) {
  for (const char* path : {"", "\\", ".", "a/.."}) {
    const File* root = Find(path);
    ASSERT_NE(root, nullptr) << path;
    EXPECT_TRUE(root->is_directory());
    EXPECT_EQ(root->size_bytes(), 0u);
  }
}

TEST_F(SingleFileBackingTest, NothingElseIsFound) {
  for (const char* path :
       {"imc.hi", "imc.hivx", "imc.hiv/x", "x/imc.hiv", "..", "../imc.hiv", "imc.hıv"}) {
    EXPECT_EQ(Find(path), nullptr) << path;
  }
}

TEST_F(SingleFileBackingTest, DescribeSaysWhatItWasTold) {
  EXPECT_EQ(backing_.Describe(), "file imc.hiv, 10 bytes");
}

}  // namespace
}  // namespace vmbfs
