#include "core/vm/data_plane.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "core/vm/strand_answer.h"

namespace vmbfs {
namespace {

using std::chrono::milliseconds;

std::chrono::steady_clock::time_point In(milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

std::thread::id ThreadOf(const DataPlane::Seat& seat) {
  return AskStrand(seat.executor(), LateWork::kRun, [] { return std::this_thread::get_id(); })
      .Wait()
      .value();
}

TEST(DataPlane, DefaultIsAtMostEightThreads) {
  const DataPlane plane(0);
  EXPECT_GE(plane.thread_count(), 1u);
  EXPECT_LE(plane.thread_count(), DataPlane::kDefaultThreadsMax);
  EXPECT_EQ(DataPlane(3).thread_count(), 3u);
}

TEST(DataPlane, SeatsSpreadOverTheThreads) {
  DataPlane plane(3);
  std::vector<DataPlane::Seat> seats;
  std::set<std::thread::id> threads;
  for (int i = 0; i < 3; ++i) {
    seats.push_back(plane.TakeSeat());
    threads.insert(ThreadOf(seats.back()));
  }
  EXPECT_EQ(threads.size(), 3u);
}

TEST(DataPlane, SeatGivenBackIsTakenNext) {
  DataPlane plane(2);
  const DataPlane::Seat first = plane.TakeSeat();
  auto second = std::make_unique<DataPlane::Seat>(plane.TakeSeat());
  const std::thread::id freed = ThreadOf(*second);
  second.reset();
  EXPECT_EQ(ThreadOf(plane.TakeSeat()), freed);
}

TEST(DataPlane, WhatWasPostedBeforeStopIsRun) {
  int ran = 0;
  DataPlane plane(1);
  const DataPlane::Seat seat = plane.TakeSeat();
  for (int i = 0; i < 1000; ++i) boost::asio::post(seat.executor(), [&ran] { ++ran; });
  plane.Stop();
  EXPECT_EQ(ran, 1000);
}

class StrandAnswerTest : public testing::Test {
 protected:
  // Keeps the strand busy until Release.
  void Block() {
    boost::asio::post(seat_.executor(),
                      [released = release_.get_future().share()] { released.wait(); });
  }
  void Release() { release_.set_value(); }

  DataPlane plane_{1};
  const DataPlane::Seat seat_ = plane_.TakeSeat();
  std::promise<void> release_;
};

TEST_F(StrandAnswerTest, AnswerComesFromTheStrand) {
  EXPECT_EQ(AskStrand(seat_.executor(), LateWork::kDrop, [] { return 17; }).Wait(), 17);
}

TEST_F(StrandAnswerTest, WorkRunsInTheOrderOfTheQuestions) {
  auto order = std::make_shared<std::vector<int>>();
  for (int i = 0; i < 3; ++i) {
    AskStrand(seat_.executor(), LateWork::kRun, [order, i] {
      order->push_back(i);
      return true;
    });
  }
  const auto seen = AskStrand(seat_.executor(), LateWork::kDrop, [order] { return *order; }).Wait();
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2}));
}

TEST_F(StrandAnswerTest, QuestionGivenUpIsNeverRun) {
  auto ran = std::make_shared<std::atomic<bool>>(false);
  Block();
  auto answer = AskStrand(seat_.executor(), LateWork::kDrop, [ran] {
    *ran = true;
    return 1;
  });
  EXPECT_EQ(answer.Wait(In(milliseconds{10})), std::nullopt);
  Release();
  plane_.Stop();
  EXPECT_FALSE(*ran);
}

TEST_F(StrandAnswerTest, DecidedWorkRunsLateAndTouchesNoDeadFrame) {
  auto ran = std::make_shared<std::atomic<bool>>(false);
  Block();
  {
    auto answer = AskStrand(seat_.executor(), LateWork::kRun, [ran] {
      *ran = true;
      return std::vector<int>(1000, 1);
    });
    EXPECT_EQ(answer.Wait(In(milliseconds{10})), std::nullopt);
  }
  Release();
  plane_.Stop();
  EXPECT_TRUE(*ran);
}

TEST_F(StrandAnswerTest, WorkIsDestroyedOnTheStrand) {
  std::promise<std::thread::id> destroyed;
  auto on_destruction = std::shared_ptr<void>(
      nullptr, [&destroyed](void*) { destroyed.set_value(std::this_thread::get_id()); });
  auto answer =
      AskStrand(seat_.executor(), LateWork::kRun, [held = std::move(on_destruction)] { return 1; });
  EXPECT_EQ(answer.Wait(), 1);
  EXPECT_EQ(destroyed.get_future().get(), ThreadOf(seat_));
}

TEST_F(StrandAnswerTest, AnswerOfAStoppedStrandNeverComes) {
  plane_.Stop();
  auto answer = AskStrand(seat_.executor(), LateWork::kRun, [] { return 1; });
  EXPECT_EQ(answer.Wait(In(milliseconds{10})), std::nullopt);
}

}  // namespace
}  // namespace vmbfs
