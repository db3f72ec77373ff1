#include "core/vmbfs/read_ahead.h"

#include <gtest/gtest.h>

#include "core/backing/memory_file.h"

namespace vmbfs {
namespace {

constexpr uint64_t kRead = 12276;

class ReadAheadTest : public testing::Test {
 protected:
  uint64_t Miss(const File& file, uint64_t offset) {
    ahead_.OnRead(&file, offset, kRead);
    return ahead_.OnMiss();
  }
  void Hit(const File& file, uint64_t offset) { ahead_.OnRead(&file, offset, kRead); }

  const MemoryFile file_{{}};
  const MemoryFile other_{{}};
  ReadAhead ahead_;
};

TEST_F(ReadAheadTest, WindowDoublesWithEachMissInSequenceUpToItsMaximum) {
  uint64_t expected = ReadAhead::kBytesMin;
  for (uint64_t read = 0; read < 20; ++read) {
    EXPECT_EQ(Miss(file_, read * kRead), expected) << read;
    expected = std::min(2 * expected, ReadAhead::kBytesMax);
  }
}

TEST_F(ReadAheadTest, HitsKeepTheWindowAndASequenceMayBeginInTheMiddle) {
  EXPECT_EQ(Miss(file_, 5), 0u);
  Hit(file_, 5 + kRead);
  EXPECT_EQ(Miss(file_, 5 + 2 * kRead), ReadAhead::kBytesMin);
  Hit(file_, 5 + 3 * kRead);
  EXPECT_EQ(Miss(file_, 5 + 4 * kRead), 2 * ReadAhead::kBytesMin);
}

TEST_F(ReadAheadTest, ReadOutOfSequenceOrOfAnotherFileClosesIt) {
  EXPECT_NE(Miss(file_, 0), 0u);
  EXPECT_EQ(Miss(file_, 100 * kRead), 0u);
  EXPECT_EQ(Miss(file_, 101 * kRead), ReadAhead::kBytesMin);
  EXPECT_EQ(Miss(other_, 102 * kRead), 0u);
  EXPECT_EQ(Miss(other_, 0), ReadAhead::kBytesMin);
  EXPECT_EQ(Miss(file_, kRead), 0u);
}

TEST_F(ReadAheadTest, SameBytesAgainAreNoSequence) {
  EXPECT_EQ(Miss(file_, 7 * kRead), 0u);
  EXPECT_EQ(Miss(file_, 7 * kRead), 0u);
}

}  // namespace
}  // namespace vmbfs
