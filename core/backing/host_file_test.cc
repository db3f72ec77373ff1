#include "core/backing/host_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs {
namespace {

// A file on disk that the test can change behind a HostFile's back.
class HostFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "/host_file_XXXXXX";
    fd_.reset(mkstemp(path_.data()));
    ASSERT_TRUE(fd_);
  }
  void TearDown() override { unlink(path_.c_str()); }

  void Append(size_t bytes) {
    const std::string text(bytes, 'x');
    ASSERT_EQ(write(fd_.get(), text.data(), text.size()), static_cast<ssize_t>(bytes));
  }
  std::unique_ptr<HostFile> Open() {
    return HostFile::Create(hyperv::UniqueFd(open(path_.c_str(), O_RDONLY | O_CLOEXEC))).value();
  }
  absl::StatusOr<size_t> ReadNow(const HostFile& file, uint64_t offset, size_t bytes) {
    buffer_.resize(bytes);
    const iovec piece{buffer_.data(), buffer_.size()};
    return file.ReadNow(offset, {&piece, 1});
  }

  std::string path_;
  hyperv::UniqueFd fd_;
  std::vector<std::byte> buffer_;
};

TEST_F(HostFileTest, WhatIsNoRegularFileIsRefused) {
  EXPECT_EQ(HostFile::Create(hyperv::UniqueFd(open("/", O_RDONLY))).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HostFile::Create(hyperv::UniqueFd(open("/dev/null", O_RDONLY))).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(HostFile::Create(hyperv::UniqueFd()).status().code(), absl::StatusCode::kInternal);
}

TEST_F(HostFileTest, BytesAddedLaterAreNotServed) {
  Append(100);
  const auto file = Open();
  Append(100);
  EXPECT_EQ(file->size_bytes(), 100u);
  buffer_.resize(200);
  EXPECT_EQ(file->ReadBlocking(10, buffer_).value(), 90u);
  const absl::StatusOr<size_t> now = ReadNow(*file, 10, 200);
  if (now.ok()) {
    EXPECT_EQ(*now, 90u);
  }
}

TEST_F(HostFileTest, AFileCutShortIsAHostFault) {
  Append(8192);
  const auto file = Open();
  ASSERT_EQ(ftruncate(fd_.get(), 4096), 0);
  buffer_.resize(8192);
  EXPECT_EQ(file->ReadBlocking(0, buffer_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file->ReadBlocking(4096, buffer_).status().code(), absl::StatusCode::kDataLoss);
  const absl::Status now = ReadNow(*file, 4096, 10).status();
  EXPECT_TRUE(now.code() == absl::StatusCode::kDataLoss ||
              now.code() == absl::StatusCode::kUnavailable)
      << now;
  // What is left can still be read.
  EXPECT_EQ(file->ReadBlocking(0, std::span(buffer_).first(4096)).value(), 4096u);
}

TEST_F(HostFileTest, AFileSystemWithoutNoWaitReadsAlwaysSaysUnavailable) {
  hyperv::UniqueFd memfd(memfd_create("file", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(memfd.get(), 4096), 0);
  std::array<std::byte, 16> probe;
  const iovec piece{probe.data(), probe.size()};
  if (preadv2(memfd.get(), &piece, 1, 0, RWF_NOWAIT) >= 0) {
    GTEST_SKIP() << "this kernel's tmpfs knows RWF_NOWAIT";
  }
  const auto file = HostFile::Create(std::move(memfd)).value();
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = ReadNow(*file, 0, 16).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(status.message().empty());
  }
}

TEST_F(HostFileTest, ReadNowGivesWhatThePageCacheHolds) {
  Append(12276);
  const auto file = Open();
  buffer_.resize(12276);
  ASSERT_TRUE(file->ReadBlocking(0, buffer_).ok());
  const iovec piece{buffer_.data(), buffer_.size()};
  if (preadv2(fd_.get(), &piece, 1, 0, RWF_NOWAIT) < 0) {
    GTEST_SKIP() << "this file system knows no RWF_NOWAIT";
  }
  EXPECT_EQ(ReadNow(*file, 0, 12276).value(), 12276u);
  EXPECT_EQ(ReadNow(*file, 12275, 12276).value(), 1u);
}

// Its reader copies then, and learns by that what the guest's memory has become.
TEST_F(HostFileTest, PieceInMemoryThatVanishedIsLeftToACopy) {
  Append(8192);
  const auto file = Open();
  buffer_.resize(8192);
  ASSERT_TRUE(file->ReadBlocking(0, buffer_).ok());
  const hyperv::UniqueFd memfd(memfd_create("guest", MFD_CLOEXEC));
  void* const gone = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.get(), 0);
  ASSERT_NE(gone, MAP_FAILED);
  const iovec piece{gone, 4096};
  EXPECT_EQ(file->ReadNow(0, {&piece, 1}).status(),
            absl::Status(absl::StatusCode::kUnavailable, ""));
  munmap(gone, 4096);
}

}  // namespace
}  // namespace vmbfs
