// What every kind of File has to do, as a suite of tests.
//
// A kind joins with INSTANTIATE_TEST_SUITE_P(Name, FileConformanceTest,
// Values(FileKind{...})).

#pragma once

#include <gtest/gtest.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/backing/backing.h"

namespace vmbfs {

struct FileKind {
  std::string name;
  // Makes a file of these bytes; there is at least one.
  std::function<std::shared_ptr<const File>(std::span<const std::byte> bytes)> make;
};

inline std::ostream& operator<<(std::ostream& out, const FileKind& kind) {
  return out << kind.name;
}

class FileConformanceTest : public testing::TestWithParam<FileKind> {
 protected:
  static std::vector<std::byte> Pattern(size_t bytes) {
    std::vector<std::byte> pattern(bytes);
    uint32_t state = 1;
    for (std::byte& byte : pattern) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<std::byte>(state >> 24);
    }
    return pattern;
  }

  // Reads as a device does: what is at hand, and the rest by waiting for it.
  // Checks that nothing behind the bytes read was touched.
  static std::vector<std::byte> Read(const File& file, uint64_t offset, size_t bytes) {
    constexpr std::byte kUntouched{0xA5};
    std::vector<std::byte> out(bytes, kUntouched);
    const iovec piece{out.data(), out.size()};
    const absl::StatusOr<size_t> now = file.ReadNow(offset, {&piece, 1});
    if (!now.ok()) {
      EXPECT_EQ(now.status().code(), absl::StatusCode::kUnavailable) << now.status();
      EXPECT_TRUE(now.status().message().empty());
    }
    const size_t now_bytes = now.ok() ? *now : 0;
    EXPECT_LE(now_bytes, bytes);
    EXPECT_TRUE(std::all_of(out.begin() + static_cast<ptrdiff_t>(now_bytes), out.end(),
                            [](std::byte b) { return b == kUntouched; }));
    if (now_bytes == bytes || offset + now_bytes == file.size_bytes()) {
      out.resize(now_bytes);
      return out;
    }
    const absl::StatusOr<size_t> later =
        file.ReadBlocking(offset + now_bytes, std::span(out).subspan(now_bytes));
    EXPECT_TRUE(later.ok()) << later.status();
    out.resize(now_bytes + (later.ok() ? *later : 0));
    return out;
  }
};

TEST_P(FileConformanceTest, ItIsAFileOfItsBytesSize) {
  for (const size_t bytes : {1u, 4096u, 12277u}) {
    const auto file = GetParam().make(Pattern(bytes));
    EXPECT_FALSE(file->is_directory());
    EXPECT_EQ(file->size_bytes(), bytes);
  }
}

TEST_P(FileConformanceTest, EveryRangeReadsAsItsBytes) {
  const std::vector<std::byte> bytes = Pattern(20000);
  const auto file = GetParam().make(bytes);
  for (const size_t offset : {0u, 1u, 4095u, 4096u, 7723u, 19999u}) {
    for (const size_t count : {1u, 7u, 4096u, 12276u, 20000u, 40000u}) {
      const size_t end = std::min<size_t>(offset + count, bytes.size());
      EXPECT_EQ(Read(*file, offset, count),
                std::vector(bytes.begin() + static_cast<ptrdiff_t>(offset),
                            bytes.begin() + static_cast<ptrdiff_t>(end)))
          << offset << " " << count;
    }
  }
}

TEST_P(FileConformanceTest, ReadBlockingFillsTheBufferOrReachesTheEnd) {
  const std::vector<std::byte> bytes = Pattern(300000);
  const auto file = GetParam().make(bytes);
  std::vector<std::byte> out(300001);
  EXPECT_EQ(file->ReadBlocking(0, std::span(out).first(299999)).value(), 299999u);
  EXPECT_EQ(file->ReadBlocking(0, out).value(), 300000u);
  out.pop_back();
  EXPECT_EQ(out, bytes);
  EXPECT_EQ(file->ReadBlocking(299999, out).value(), 1u);
  EXPECT_EQ(file->ReadBlocking(5, std::span(out).first(0)).value(), 0u);
}

TEST_P(FileConformanceTest, PiecesAreFilledInOrder) {
  const std::vector<std::byte> bytes = Pattern(9000);
  const auto file = GetParam().make(bytes);
  std::array<std::byte, 1> first{};
  std::array<std::byte, 5000> second{};
  std::array<std::byte, 9000> third{};
  const std::array<iovec, 4> pieces = {iovec{first.data(), first.size()}, iovec{nullptr, 0},
                                       iovec{second.data(), second.size()},
                                       iovec{third.data(), third.size()}};
  const absl::StatusOr<size_t> count = file->ReadNow(10, pieces);
  if (!count.ok()) {
    ASSERT_EQ(count.status().code(), absl::StatusCode::kUnavailable);
    GTEST_SKIP() << "this file system does not say what is in memory";
  }
  ASSERT_LE(*count, 8990u);
  std::vector<std::byte> read(first.begin(), first.end());
  read.insert(read.end(), second.begin(), second.end());
  read.insert(read.end(), third.begin(), third.end());
  EXPECT_TRUE(
      std::equal(read.begin(), read.begin() + static_cast<ptrdiff_t>(*count), bytes.begin() + 10));
}

}  // namespace vmbfs
