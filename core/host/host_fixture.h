// A Host over folders of its own, for tests.

#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "core/inspect/node.h"

namespace vmbfs {

class HostFixture : public testing::Test {
 protected:
  void SetUp() override {
    // Not TEST_TMPDIR, whose path may be too long for a socket.
    std::string pattern = std::filesystem::temp_directory_path() / "vmbfs_host_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.state_dir = folder_ / "state";
    options_.runtime_dir = folder_ / "run";
    options_.boot_bytes_max = 1 << 20;
    options_.data_plane_threads = 2;
    options_.blocking_threads = 2;
    Restart();
  }

  void TearDown() override {
    host_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Restart() {
    host_.reset();
    auto host = Host::Start(options_);
    ASSERT_TRUE(host.ok()) << host.status();
    host_ = *std::move(host);
  }

  // Also of more than a device accepts.
  FileContent Upload(const std::string& text, const std::string& name = "boot.wim") {
    auto writer = host_->blobs().Begin(uint64_t{1} << 30);
    EXPECT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE((*writer)->Write(std::as_bytes(std::span(text))).ok());
    const auto info = (*writer)->Finish(std::nullopt);
    EXPECT_TRUE(info.ok()) << info.status();
    return FileContent{.sha256 = info->sha256, .size_bytes = info->size_bytes, .name = name};
  }

  // The value at a path of the inspect tree, as text; empty when there is none.
  std::string Seen(const std::string& path) {
    const auto node = host_->Inspect(path, 0);
    if (!node.ok()) return "";
    return std::visit(
        [](const auto& value) -> std::string {
          using Value = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<Value, std::string>) {
            return value;
          } else if constexpr (std::is_same_v<Value, std::monostate>) {
            return "(folder)";
          } else {
            return std::to_string(value);
          }
        },
        node->value);
  }

  std::filesystem::path folder_;
  HostOptions options_;
  std::unique_ptr<Host> host_;
};

// Matches a status by code and reason.
inline void ExpectError(const absl::Status& status, absl::StatusCode code,
                        const std::string& reason) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
  EXPECT_FALSE(status.message().empty());
}

}  // namespace vmbfs
