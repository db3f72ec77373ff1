#include "core/vm/strand_blocking_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "core/vm/data_plane.h"
#include "core/vm/strand_answer.h"

namespace vmbfs {
namespace {

class StrandBlockingRunnerTest : public testing::Test {
 protected:
  void TearDown() override {
    OnStrand([this] { runner_.reset(); });
    pool_.join();
    plane_.Stop();
  }

  template <typename Function>
  void OnStrand(Function work) {
    AskStrand(seat_.executor(), LateWork::kRun, [&work] {
      work();
      return true;
    }).Wait();
  }

  DataPlane plane_{1};
  const DataPlane::Seat seat_ = plane_.TakeSeat();
  boost::asio::thread_pool pool_{4};
  std::optional<StrandBlockingRunner> runner_{std::in_place, seat_.executor(), pool_};
};

TEST_F(StrandBlockingRunnerTest, WorkRunsElsewhereAndItsEndOnTheStrand) {
  std::thread::id strand;
  std::thread::id worker;
  std::promise<std::thread::id> end;
  OnStrand([&] {
    strand = std::this_thread::get_id();
    runner_->Run([&] { worker = std::this_thread::get_id(); },
                 [&] { end.set_value(std::this_thread::get_id()); });
  });
  EXPECT_EQ(end.get_future().get(), strand);
  EXPECT_NE(worker, strand);
}

TEST_F(StrandBlockingRunnerTest, AtMostTwoJobsRunAtATimeAndAllEnd) {
  constexpr int kJobs = 20;
  std::atomic<int> running = 0;
  std::atomic<int> most = 0;
  int ended = 0;
  std::promise<void> all;
  OnStrand([&] {
    for (int i = 0; i < kJobs; ++i) {
      runner_->Run(
          [&] {
            const int now = ++running;
            int seen = most.load();
            while (now > seen && !most.compare_exchange_weak(seen, now)) {
            }
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
            --running;
          },
          [&] {
            if (++ended == kJobs) all.set_value();
          });
    }
  });
  all.get_future().wait();
  EXPECT_LE(most.load(), 2);
}

TEST_F(StrandBlockingRunnerTest, JobIsDestroyedOnTheStrand) {
  std::promise<std::thread::id> destroyed;
  std::thread::id strand;
  OnStrand([&] {
    strand = std::this_thread::get_id();
    auto held = std::shared_ptr<void>(
        nullptr, [&destroyed](void*) { destroyed.set_value(std::this_thread::get_id()); });
    runner_->Run([held] {}, [held] {});
  });
  EXPECT_EQ(destroyed.get_future().get(), strand);
}

TEST_F(StrandBlockingRunnerTest, EndComesAlsoWhenTheRunnerIsGone) {
  std::promise<void> release;
  std::promise<void> end;
  OnStrand([&] {
    runner_->Run([&] { release.get_future().wait(); }, [&] { end.set_value(); });
    runner_.reset();
  });
  release.set_value();
  end.get_future().wait();
}

TEST_F(StrandBlockingRunnerTest, BeyondTheBoundTheLongestWaitingJobEndsWithoutItsWork) {
  constexpr size_t kHeld = StrandBlockingRunner::kJobsMax;
  constexpr size_t kJobs = kHeld + StrandBlockingRunner::kWaitingMax + 1;
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  std::vector<size_t> ended;
  std::array<std::atomic<bool>, kJobs> worked{};
  std::promise<void> last;
  OnStrand([&] {
    for (size_t i = 0; i < kJobs; ++i) {
      runner_->Run(
          [released, &worked, i] {
            released.wait();
            worked[i] = true;
          },
          [&, i] {
            ended.push_back(i);
            if (ended.size() == kJobs) last.set_value();
          });
    }
  });
  release.set_value();
  last.get_future().wait();
  OnStrand([&] { EXPECT_EQ(std::count(ended.begin(), ended.end(), kHeld), 1); });
  for (size_t i = 0; i < kJobs; ++i) EXPECT_EQ(worked[i], i != kHeld) << i;
}

}  // namespace
}  // namespace vmbfs
