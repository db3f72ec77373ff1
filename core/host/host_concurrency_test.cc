// Many callers at once, as the control plane's threads are. For ThreadSanitizer.

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "core/host/host_fixture.h"

namespace vmbfs {
namespace {

using HostConcurrencyTest = HostFixture;

constexpr int kThreads = 8;
constexpr int kCallsPerThread = 60;
constexpr int kNames = 3;

// What calls that race may answer: somebody else was first.
bool IsExpected(const absl::Status& status) {
  return status.ok() || status.code() == absl::StatusCode::kNotFound ||
         status.code() == absl::StatusCode::kAlreadyExists;
}

TEST_F(HostConcurrencyTest, MixedCallsFromManyThreadsKeepTheHostWhole) {
  const std::vector<FileContent> contents = {Upload("one"), Upload("two"), Upload("three")};
  std::atomic<int> unexpected = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::minstd_rand random(static_cast<unsigned>(thread + 1));
      const auto below = [&random](size_t bound) { return random() % bound; };
      for (int call = 0; call < kCallsPerThread; ++call) {
        const std::string vm = "vm-" + std::to_string(below(kNames));
        const DeviceKind device = kDeviceKinds[below(2)];
        const FileContent& content = contents[below(contents.size())];
        absl::Status status;
        switch (below(9)) {
          case 0:
          case 1:
            status = host_->CreateVm(vm, {}).status();
            break;
          case 2:
            status = host_->DeleteVm(vm, below(2) == 0, "");
            break;
          case 3:
          case 4:
            status = host_->Attach(vm, device, content).status();
            break;
          case 5:
            status = host_->Swap(vm, device, content, "").status();
            break;
          case 6:
            status = host_->Detach(vm, device, below(2) == 0, "");
            break;
          case 7:
            status = host_->ListVms("", 10).status();
            break;
          default:
            status = host_->Inspect("", 9).status();
        }
        if (!IsExpected(status)) {
          ++unexpected;
          ADD_FAILURE() << status;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(unexpected.load(), 0);

  const auto before = host_->ListVms("", 10);
  Restart();
  const auto after = host_->ListVms("", 10);
  ASSERT_EQ(after->vms.size(), before->vms.size());
  for (size_t i = 0; i < after->vms.size(); ++i) {
    EXPECT_EQ(after->vms[i].name, before->vms[i].name);
    EXPECT_EQ(after->vms[i].etag, before->vms[i].etag);
    ASSERT_EQ(after->vms[i].attachments.size(), before->vms[i].attachments.size());
    for (size_t j = 0; j < after->vms[i].attachments.size(); ++j) {
      EXPECT_EQ(after->vms[i].attachments[j].etag, before->vms[i].attachments[j].etag);
      EXPECT_EQ(after->vms[i].attachments[j].wanted.sha256,
                before->vms[i].attachments[j].wanted.sha256);
    }
  }
}

}  // namespace
}  // namespace vmbfs
