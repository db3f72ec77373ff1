#include "grpc/executor/executor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace vmbfs::rpc {
namespace {

TEST(Executor, JobBeyondTheBoundIsRefusedAndTakenAgainOnceOneEnded) {
  Executor executor(/*threads=*/1, /*jobs_max=*/2);
  std::promise<void> release;
  std::shared_future<void> released = release.get_future().share();
  std::atomic<int> ran{0};
  const auto job = [released, &ran] {
    released.wait();
    ++ran;
  };
  EXPECT_TRUE(executor.TryPost(job));
  EXPECT_TRUE(executor.TryPost(job));
  EXPECT_FALSE(executor.TryPost(job));
  release.set_value();
  while (!executor.TryPost([] {})) {
  }
  EXPECT_GE(ran, 1);
}

TEST(Executor, NextStepOfACallIsTakenBeyondTheBound) {
  Executor executor(/*threads=*/1, /*jobs_max=*/1);
  std::promise<void> release;
  std::promise<void> ran;
  ASSERT_TRUE(executor.TryPost([&] { release.get_future().wait(); }));
  executor.Post([&] { ran.set_value(); });
  release.set_value();
  ran.get_future().wait();
}

TEST(Executor, DestructorRunsWhatWasPosted) {
  std::atomic<int> ran{0};
  {
    Executor executor(/*threads=*/2, /*jobs_max=*/100);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(executor.TryPost([&ran] { ++ran; }));
  }
  EXPECT_EQ(ran, 100);
}

}  // namespace
}  // namespace vmbfs::rpc
