// What a host does before the process has no descriptors left.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host_fixture.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {
namespace {

using absl::StatusCode;

using HostDescriptorsTest = HostFixture;

// Lowers what the process may open, until its end.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t max) {
    EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
    rlimit lower = before_;
    lower.rlim_cur = max;
    EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &lower), 0);
  }
  ~DescriptorLimit() { EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
};

TEST_F(HostDescriptorsTest, VmsAreRefusedBeforeDescriptorsRunOut) {
  const DescriptorLimit limit(160);  // of which 20 are kept back
  absl::Status refused;
  int created = 0;
  for (; refused.ok() && created < 160; ++created) {
    refused = host_->CreateVm("web-" + std::to_string(created), {}).status();
  }
  ExpectError(refused, StatusCode::kResourceExhausted, "TOO_MANY_DESCRIPTORS");
  EXPECT_NE(refused.message().find("of at most 160 descriptors"), std::string::npos) << refused;
  std::vector<hyperv::UniqueFd> kept_back;
  while (hyperv::UniqueFd fd{::dup(0)}) kept_back.push_back(std::move(fd));
  EXPECT_GE(kept_back.size(), 19u);
  EXPECT_LE(kept_back.size(), 21u);
  kept_back.clear();
  EXPECT_TRUE(host_->DeleteVm("web-0", false, "").ok());
}

TEST_F(HostDescriptorsTest, RestartNeedsFewerThanAreKeptBack) {
  ASSERT_TRUE(host_->CreateVm("web", {}).ok());
  // Others take all but 80 of 1,000, of which 125 are kept back.
  const DescriptorLimit limit(1000);
  std::vector<hyperv::UniqueFd> taken;
  while (taken.empty() || taken.back().get() < 1000 - 81) taken.emplace_back(::dup(0));
  ExpectError(host_->CreateVm("late", {}).status(), StatusCode::kResourceExhausted,
              "TOO_MANY_DESCRIPTORS");
  Restart();
  EXPECT_TRUE(host_->GetVm("web").ok());
}

}  // namespace
}  // namespace vmbfs
