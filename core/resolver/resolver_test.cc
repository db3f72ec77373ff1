#include "core/resolver/resolver.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/backing/backing.h"
#include "core/blob/blob_store.h"
#include "core/path/guest_path.h"
#include "core/resolver/blob_backing.h"

namespace vmbfs {
namespace {

class ResolverTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/resolver_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    blobs_ = BlobStore::Open(folder_ / "blobs").value();
    ASSERT_TRUE(RegisterBlobKind(resolver_, *blobs_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  BackingSource Upload(const std::string& text, const std::string& name) {
    auto writer = blobs_->Begin(1 << 20).value();
    EXPECT_TRUE(writer->Write(std::as_bytes(std::span(text))).ok());
    const BlobInfo info = writer->Finish(std::nullopt).value();
    return BackingSource{
        .kind = "blob", .sha256 = info.sha256, .size_bytes = info.size_bytes, .file_name = name};
  }

  std::filesystem::path folder_;
  std::unique_ptr<BlobStore> blobs_;
  Resolver resolver_;
};

TEST_F(ResolverTest, BlobIsServedUnderTheShownName) {
  const BackingSource source = Upload("hello", "boot.wim");
  const auto live = resolver_.Resolve(source);
  ASSERT_TRUE(live.ok()) << live.status();
  EXPECT_EQ(live->source, source);
  EXPECT_EQ(live->backing->Describe(), "file boot.wim, 5 bytes, sha256 " + source.sha256);
  const File* file = live->backing->Find(GuestPath::FromUtf8("\\BOOT.WIM").value());
  ASSERT_NE(file, nullptr);
  std::vector<std::byte> bytes(file->size_bytes());
  EXPECT_EQ(file->ReadBlocking(0, bytes).value(), 5u);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "hello");
}

TEST_F(ResolverTest, UnknownKindIsRefusedWithTheKnownOnes) {
  BackingSource source = Upload("hello", "boot.wim");
  source.kind = "tape";
  const absl::Status status = resolver_.Resolve(source).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "this program has no backing kind \"tape\"; it has: blob");
}

TEST_F(ResolverTest, KindRegisteredTwiceIsRefused) {
  EXPECT_EQ(RegisterBlobKind(resolver_, *blobs_).code(), absl::StatusCode::kAlreadyExists);
}

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                           std::filesystem::directory_iterator()));
}

TEST_F(ResolverTest, BackingsOfOneBlobShareItsDescriptorAndTheLastClosesIt) {
  const BackingSource source = Upload("hello", "boot.wim");
  const size_t before = OpenDescriptors();
  std::vector<LiveBacking> live;
  for (int i = 0; i < 100; ++i) live.push_back(resolver_.Resolve(source).value());
  EXPECT_EQ(OpenDescriptors(), before + 1);
  live.clear();
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(ResolverTest, BlobThatWasLostIsAnErrorAlsoWhileAnotherBackingHasItOpen) {
  const BackingSource source = Upload("hello", "boot.wim");
  const auto live = resolver_.Resolve(source);
  ASSERT_TRUE(live.ok());
  std::filesystem::remove(folder_ / "blobs" / source.sha256.substr(0, 2) / source.sha256);
  EXPECT_EQ(resolver_.Resolve(source).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ResolverTest, MissingOrDamagedBlobIsAnError) {
  BackingSource source = Upload("hello", "boot.wim");
  source.size_bytes = 6;
  EXPECT_EQ(resolver_.Resolve(source).status().code(), absl::StatusCode::kDataLoss);
  source.sha256 = std::string(64, '0');
  EXPECT_EQ(resolver_.Resolve(source).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ResolverTest, NameWithSeparatorIsRefused) {
  BackingSource source = Upload("hello", "efi/boot.wim");
  EXPECT_EQ(resolver_.Resolve(source).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(UnreadableBacking, FileIsThereAndEveryReadFails) {
  const BackingSource source{
      .kind = "blob", .sha256 = std::string(64, 'a'), .size_bytes = 9, .file_name = "imc.hiv"};
  const auto live = MakeUnreadableBacking(source, absl::UnavailableError("the disk is gone"));
  ASSERT_TRUE(live.ok()) << live.status();
  const File* file = live->backing->Find(GuestPath::FromUtf8("imc.hiv").value());
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->size_bytes(), 9u);
  EXPECT_EQ(file->ReadNow(0, {}).status(), absl::DataLossError("the disk is gone"));
  std::vector<std::byte> bytes(9);
  EXPECT_EQ(file->ReadBlocking(0, bytes).status(), absl::DataLossError("the disk is gone"));
  EXPECT_EQ(live->backing->Describe(), "unreadable file imc.hiv, 9 bytes: the disk is gone");
}

}  // namespace
}  // namespace vmbfs
