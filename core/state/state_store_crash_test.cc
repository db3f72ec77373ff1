// A process that commits is killed; what it had acknowledged must be there.

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/state/state_store.h"

namespace vmbfs {
namespace {

constexpr int kKills = 8;
constexpr uint32_t kAcknowledgedBeforeKill = 20;

std::string NameOf(int round, uint32_t number) { return absl::StrCat("vm-", round, "-", number); }

// Stores VMs for ever and writes the number of each to `acknowledged` after its
// commit. Every third one is deleted again before it is acknowledged.
[[noreturn]] void CommitForEver(const std::filesystem::path& folder, int round, int acknowledged) {
  auto store = OpenStateStore(folder);
  if (!store.ok()) _exit(1);
  for (uint32_t number = 0;; ++number) {
    const VmRecord vm{
        .name = NameOf(round, number), .owner_uid = 1, .create_time_us = 1, .revision = 0};
    if (!(*store)->InsertVm(vm).ok()) _exit(2);
    if (number % 3 == 2 && !(*store)->DeleteVm(vm.name).ok()) _exit(3);
    if (write(acknowledged, &number, sizeof number) != sizeof number) _exit(4);
  }
}

TEST(StateStoreCrash, AcknowledgedChangesSurviveKill) {
  std::string pattern = testing::TempDir() + "/crash_XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path folder = pattern;
  std::set<std::string> expected;
  std::set<std::string> deleted;
  for (int round = 0; round < kKills; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    if (child == 0) CommitForEver(folder, round, pipe_fds[1]);
    close(pipe_fds[1]);
    uint32_t number = 0;
    while (read(pipe_fds[0], &number, sizeof number) == sizeof number) {
      (number % 3 == 2 ? deleted : expected).insert(NameOf(round, number));
      // Acknowledgements written before it dies are still read.
      if (number == kAcknowledgedBeforeKill + static_cast<uint32_t>(round)) kill(child, SIGKILL);
    }
    close(pipe_fds[0]);
    int wait_status = 0;
    ASSERT_EQ(waitpid(child, &wait_status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(wait_status)) << "the child ended by itself: " << wait_status;

    const auto store = OpenStateStore(folder);
    ASSERT_TRUE(store.ok()) << store.status();
    const auto contents = (*store)->Load();
    ASSERT_TRUE(contents.ok()) << contents.status();
    std::set<std::string> found;
    for (const VmRecord& vm : contents->vms) found.insert(vm.name);
    for (const std::string& name : expected) EXPECT_TRUE(found.contains(name)) << name;
    for (const std::string& name : deleted) EXPECT_FALSE(found.contains(name)) << name;
    // At most the one that was under way is there besides.
    EXPECT_LE(found.size(), expected.size() + static_cast<size_t>(round) + 1);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace vmbfs
