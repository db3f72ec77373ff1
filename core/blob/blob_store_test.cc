#include "core/blob/blob_store.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;

// FIPS 180-2, appendix B.1 and B.2, and the digest of nothing.
constexpr char kAbcDigest[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kLongDigest[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
constexpr char kEmptyDigest[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

class BlobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/blob_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = fs::path(pattern) / "blobs";
    Reopen();
  }
  void TearDown() override { fs::remove_all(folder_.parent_path()); }

  void Reopen() {
    store_.reset();
    auto store = BlobStore::Open(folder_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  absl::StatusOr<BlobInfo> Upload(const std::string& text,
                                  const std::optional<std::string>& expected = std::nullopt) {
    auto writer = store_->Begin(1 << 20);
    if (!writer.ok()) return writer.status();
    if (absl::Status status = (*writer)->Write(Bytes(text)); !status.ok()) return status;
    return (*writer)->Finish(expected);
  }

  std::string Content(const std::string& sha256, uint64_t size_bytes) {
    const auto fd = store_->OpenForRead(sha256, size_bytes);
    if (!fd.ok()) return fd.status().ToString();
    std::string text(size_bytes, '\0');
    EXPECT_EQ(read(fd->get(), text.data(), text.size()), static_cast<ssize_t>(size_bytes));
    return text;
  }

  size_t IncomingFiles() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_ / "incoming"), {}));
  }

  fs::path folder_;
  std::unique_ptr<BlobStore> store_;
};

TEST(Sha256Hex, KnownDigestsComeOut) {
  EXPECT_EQ(Sha256Hex(Bytes("abc")), kAbcDigest);
  EXPECT_EQ(Sha256Hex(Bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            kLongDigest);
  EXPECT_EQ(Sha256Hex({}), kEmptyDigest);
}

TEST(IsSha256Hex, OnlySixtyFourLowerCaseDigitsAreOne) {
  EXPECT_TRUE(IsSha256Hex(kAbcDigest));
  EXPECT_FALSE(IsSha256Hex(std::string(kAbcDigest).substr(1)));
  EXPECT_FALSE(IsSha256Hex(std::string(kAbcDigest) + "0"));
  EXPECT_FALSE(IsSha256Hex(std::string(64, 'A')));
  EXPECT_FALSE(IsSha256Hex("../" + std::string(61, 'a')));
  EXPECT_FALSE(IsSha256Hex(""));
}

TEST_F(BlobStoreTest, UploadIsFoundAndReadAlsoAfterReopening) {
  const auto info = Upload("abc", kAbcDigest);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->sha256, kAbcDigest);
  EXPECT_EQ(info->size_bytes, 3u);
  Reopen();
  EXPECT_EQ(store_->Find(kAbcDigest)->size_bytes, 3u);
  EXPECT_EQ(Content(kAbcDigest, 3), "abc");
}

TEST_F(BlobStoreTest, BytesInManyPiecesHaveTheSameDigest) {
  auto writer = store_->Begin(3).value();
  for (const char* piece : {"a", "", "b", "c"}) ASSERT_TRUE(writer->Write(Bytes(piece)).ok());
  EXPECT_EQ(writer->Finish(std::nullopt)->sha256, kAbcDigest);
}

TEST_F(BlobStoreTest, FilesAreReadOnlyInPrivateFolders) {
  ASSERT_TRUE(Upload("abc").ok());
  struct stat info{};
  ASSERT_EQ(stat((folder_ / "ba" / kAbcDigest).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0400u);
  for (const fs::path& folder : {folder_, folder_ / "ba", folder_ / "incoming"}) {
    ASSERT_EQ(stat(folder.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0700u) << folder;
  }
}

TEST_F(BlobStoreTest, EmptyBlobIsABlob) {
  ASSERT_TRUE(Upload("").ok());
  EXPECT_EQ(store_->Find(kEmptyDigest)->size_bytes, 0u);
}

TEST_F(BlobStoreTest, SecondUploadOfTheSameContentKeepsTheFile) {
  ASSERT_TRUE(Upload("abc").ok());
  struct stat before{};
  ASSERT_EQ(stat((folder_ / "ba" / kAbcDigest).c_str(), &before), 0);
  ASSERT_TRUE(Upload("abc").ok());
  struct stat after{};
  ASSERT_EQ(stat((folder_ / "ba" / kAbcDigest).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(IncomingFiles(), 0u);
}

TEST_F(BlobStoreTest, UploadReplacesADamagedFile) {
  ASSERT_TRUE(Upload("abc").ok());
  ASSERT_EQ(truncate((folder_ / "ba" / kAbcDigest).c_str(), 1), 0);
  EXPECT_EQ(store_->OpenForRead(kAbcDigest, 3).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(Upload("abc").ok());
  EXPECT_EQ(Content(kAbcDigest, 3), "abc");
}

TEST_F(BlobStoreTest, UploadReplacesAFileOfTheSameSizeWithOtherBytes) {
  ASSERT_TRUE(Upload("abc").ok());
  const std::filesystem::path path = folder_ / "ba" / kAbcDigest;
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  std::ofstream(path, std::ios::binary) << "abd";
  ASSERT_TRUE(Upload("abc").ok());
  EXPECT_EQ(Content(kAbcDigest, 3), "abc");
  EXPECT_EQ(IncomingFiles(), 0u);
}

TEST_F(BlobStoreTest, OtherDigestThanExpectedIsRefusedAndLeavesNothing) {
  const auto info = Upload("abd", kAbcDigest);
  EXPECT_EQ(info.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(IncomingFiles(), 0u);
  EXPECT_EQ(store_->Find(kAbcDigest).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Find(Sha256Hex(Bytes("abd"))).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(BlobStoreTest, ByteBeyondTheLimitEndsTheUpload) {
  auto writer = store_->Begin(3).value();
  ASSERT_TRUE(writer->Write(Bytes("abc")).ok());
  EXPECT_EQ(writer->Write(Bytes("d")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(writer->Finish(std::nullopt).status().code(), absl::StatusCode::kResourceExhausted);
  writer.reset();
  EXPECT_EQ(IncomingFiles(), 0u);
}

TEST_F(BlobStoreTest, DiskThatTakesNoMoreIsAnErrorAndLeavesNothing) {
  auto writer = store_->Begin(1 << 20).value();
  struct rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = writer->Write(Bytes(std::string(8192, 'x')));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(writer->Finish(std::nullopt).ok());
  writer.reset();
  EXPECT_EQ(IncomingFiles(), 0u);
}

TEST_F(BlobStoreTest, InterruptedWriterLeavesNothing) {
  {
    auto writer = store_->Begin(1 << 20).value();
    ASSERT_TRUE(writer->Write(Bytes("abc")).ok());
    EXPECT_EQ(IncomingFiles(), 1u);
  }
  EXPECT_EQ(IncomingFiles(), 0u);
}

TEST_F(BlobStoreTest, UploadsThatACrashLeftAreRemovedAtOpen) {
  ASSERT_TRUE(Upload("abc").ok());
  std::ofstream(folder_ / "incoming" / "0") << "half an upl";
  Reopen();
  EXPECT_EQ(IncomingFiles(), 0u);
  EXPECT_EQ(Content(kAbcDigest, 3), "abc");
  ASSERT_TRUE(Upload("abd").ok());
}

TEST_F(BlobStoreTest, WhatIsNoDigestIsRefused) {
  for (const std::string& name : {std::string(), std::string("../../etc/passwd"),
                                  std::string(64, 'g'), std::string(kAbcDigest) + "/"}) {
    EXPECT_EQ(store_->Find(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->OpenForRead(name, 3).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(BlobStoreTest, UploadsOfTheSameContentAtOnceAllSucceed) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int round = 0; round < 8; ++round) EXPECT_TRUE(Upload("abc", kAbcDigest).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Content(kAbcDigest, 3), "abc");
  EXPECT_EQ(IncomingFiles(), 0u);
}

}  // namespace
}  // namespace vmbfs
