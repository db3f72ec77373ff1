#include "core/blob/whole_blob.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace vmbfs {
namespace {

namespace fs = std::filesystem;

// FIPS 180-2, appendix B.1.
constexpr char kAbcDigest[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class WholeBlobTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/blob_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    auto store = BlobStore::Open(folder_ / "blobs");
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void TearDown() override { fs::remove_all(folder_); }

  absl::StatusOr<BlobInfo> Store(const std::string& text) {
    return StoreBlob(*store_, std::as_bytes(std::span(text)));
  }
  absl::StatusCode ReadError(const std::string& sha256, uint64_t bytes_max) {
    return ReadBlob(*store_, sha256, bytes_max).status().code();
  }

  fs::path folder_;
  std::unique_ptr<BlobStore> store_;
};

TEST_F(WholeBlobTest, StoredBytesAreReadBackByTheirDigest) {
  for (int i = 0; i < 2; ++i) {
    const auto info = Store("abc");
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(info->sha256, kAbcDigest);
    EXPECT_EQ(info->size_bytes, 3u);
  }
  const auto bytes = ReadBlob(*store_, kAbcDigest, 3);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(Sha256Hex(*bytes), kAbcDigest);
  EXPECT_TRUE(ReadBlob(*store_, Store("")->sha256, 0)->empty());
}

TEST_F(WholeBlobTest, WhatIsMissingOrTooLargeIsNotRead) {
  ASSERT_TRUE(Store("abc").ok());
  EXPECT_EQ(ReadError(kAbcDigest, 2), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadError(std::string(64, '0'), 3), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadError("abc", 3), absl::StatusCode::kInvalidArgument);
}

TEST_F(WholeBlobTest, BytesThatAreNotThoseOfTheNameAreALoss) {
  ASSERT_TRUE(Store("abc").ok());
  const fs::path file = folder_ / "blobs" / "ba" / kAbcDigest;
  ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
  std::ofstream(file) << "abd";
  EXPECT_EQ(ReadError(kAbcDigest, 3), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace vmbfs
