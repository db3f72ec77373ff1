// The loop over fake channels and a clock of its own: each look at the clock takes
// kRound, so each round does.

#include "hyperv/spin/spinner.h"

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;
using Next = ChannelTurn::Next;
using Time = Spinner::Time;

constexpr microseconds kRound{1};
constexpr microseconds kWindow{50};

Time fake_now;

Time FakeClock() { return fake_now += kRound; }

class FakeChannel final : public SpinningChannel {
 public:
  FakeChannel(std::string name, std::vector<std::string>& log)
      : name_(std::move(name)), log_(log) {}

  // Instead of finding nothing; may destroy the channel when it returns nullopt.
  std::function<std::optional<ChannelTurn>()> on_turn;
  std::function<void()> on_sleep;
  int turns = 0;
  int sleeps = 0;
  Time slept_at;

 private:
  std::optional<ChannelTurn> TakeTurn() override {
    ++turns;
    log_.push_back(name_);
    return on_turn ? on_turn() : ChannelTurn{};
  }
  void Sleep() override {
    EXPECT_FALSE(awake());
    ++sleeps;
    slept_at = fake_now;
    if (on_sleep) on_sleep();
  }

  const std::string name_;
  std::vector<std::string>& log_;
};

class SpinnerTest : public testing::Test {
 protected:
  SpinnerTest() { fake_now = Time() + std::chrono::seconds{100}; }

  std::unique_ptr<FakeChannel> Channel(const std::string& name) {
    return std::make_unique<FakeChannel>(name, log_);
  }
  // Runs the thread: `handler`, and on until `ends`.
  void RunUntil(std::function<bool()> ends, const std::function<void()>& handler) {
    context_.restart();
    ends_ = std::move(ends);
    boost::asio::post(context_, handler);
    boost::asio::post(context_, [this] { LookForEnd(); });
    spinner_.Run(context_);
  }
  void LookForEnd() {
    ends_() ? context_.stop() : boost::asio::post(context_, [this] { LookForEnd(); });
  }
  // Until nothing is awake.
  void Run(const std::function<void()>& handler) {
    RunUntil([this] { return !first_->awake() && (!second_ || !second_->awake()); }, handler);
  }
  static ChannelTurn Found(uint32_t requests) {
    return {.next = Next::kIdle, .requests = requests};
  }
  // A turn of a guest that keeps its ring full.
  static ChannelTurn Flood(bool goes_on) {
    return goes_on ? ChannelTurn{.next = Next::kMore, .requests = 16} : ChannelTurn{};
  }

  boost::asio::io_context context_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  Spinner spinner_{{.window = kWindow, .percent_max = 20}, &FakeClock};
  std::vector<std::string> log_;
  std::unique_ptr<FakeChannel> first_ = Channel("first");
  std::unique_ptr<FakeChannel> second_;
  std::function<bool()> ends_;
};

TEST_F(SpinnerTest, AnAwakeChannelIsLookedAtForItsWindowAndThenSleeps) {
  const Time begin = fake_now;
  Run([this] { spinner_.Add(*first_); });
  EXPECT_EQ(first_->sleeps, 1);
  EXPECT_GE(first_->slept_at - begin, kWindow);
  EXPECT_LE(first_->slept_at - begin, kWindow + 5 * kRound);
  EXPECT_GE(first_->turns, kWindow / kRound);
  const SpinStatus status = spinner_.status();
  EXPECT_EQ(status.spins, 1u);
  EXPECT_EQ(status.spins_found, 0u);
  EXPECT_EQ(status.sleeps, 1u);
  EXPECT_EQ(status.window_ns, 50'000u);
  EXPECT_GT(status.spin_ns, 40'000u);
}

TEST_F(SpinnerTest, EachRequestBeginsTheWindowAgain) {
  const Time begin = fake_now;
  // A request every 40 us, ten times.
  first_->on_turn = [begin, found = 0]() mutable -> std::optional<ChannelTurn> {
    if (found == 10 || fake_now - begin < (found + 1) * microseconds{40}) return ChannelTurn{};
    ++found;
    return Found(1);
  };
  Run([this] { spinner_.Add(*first_); });
  EXPECT_GE(first_->slept_at - begin, microseconds{400} + kWindow);
  EXPECT_EQ(first_->sleeps, 1);
  EXPECT_EQ(spinner_.status().spins, 11u);
  EXPECT_EQ(spinner_.status().spins_found, 10u);
}

TEST_F(SpinnerTest, ChannelsTakeTurns) {
  second_ = Channel("second");
  for (FakeChannel* channel : {first_.get(), second_.get()}) {
    channel->on_turn = [channel] { return Flood(channel->turns < 20); };
  }
  Run([this] {
    spinner_.Add(*first_);
    spinner_.Add(*second_);
  });
  for (size_t turn = 0; turn < 40; ++turn) {
    EXPECT_EQ(log_[turn], turn % 2 == 0 ? "first" : "second") << turn;
  }
}

TEST_F(SpinnerTest, PostedWorkRunsAfterSixteenRequestsOfAFlood) {
  int turns_before_work = -1;
  first_->on_turn = [this] { return Flood(first_->turns < 100); };
  Run([this, &turns_before_work] {
    spinner_.Add(*first_);
    boost::asio::post(context_, [this, &turns_before_work] { turns_before_work = first_->turns; });
  });
  EXPECT_EQ(turns_before_work, 1);
}

TEST_F(SpinnerTest, PostedWorkRunsAfterThePollIntervalOfALookInVain) {
  Time ran;
  const Time begin = fake_now;
  Run([this, &ran] {
    spinner_.Add(*first_);
    boost::asio::post(context_, [&ran] { ran = fake_now; });
  });
  EXPECT_GT(ran, begin);
  EXPECT_LE(ran - begin, Spinner::kPollInterval + 5 * kRound);
}

TEST_F(SpinnerTest, WorkThatPostsItselfForeverLeavesTurnsToChannels) {
  std::function<void()> again = [&] {
    if (first_->sleeps == 0) boost::asio::post(context_, again);
  };
  Run([&] {
    spinner_.Add(*first_);
    again();
  });
  EXPECT_EQ(first_->sleeps, 1);
}

TEST_F(SpinnerTest, ATurnThatWaitsForAWakeLeavesWithoutSleeping) {
  first_->on_turn = [] { return ChannelTurn{.next = Next::kWaiting, .requests = 1}; };
  Run([this] { spinner_.Add(*first_); });
  EXPECT_EQ(first_->turns, 1);
  EXPECT_EQ(first_->sleeps, 0);
  EXPECT_FALSE(first_->awake());
}

TEST_F(SpinnerTest, ARemovedChannelHasNoTurnAndDoesNotSleep) {
  second_ = Channel("second");
  first_->on_turn = [this]() -> std::optional<ChannelTurn> {
    spinner_.Remove(*second_);
    return ChannelTurn{};
  };
  Run([this] {
    spinner_.Add(*first_);
    spinner_.Add(*second_);
  });
  EXPECT_EQ(second_->turns, 0);
  EXPECT_EQ(second_->sleeps, 0);
  EXPECT_EQ(first_->sleeps, 1);
}

TEST_F(SpinnerTest, AChannelMayBeDestroyedInItsTurnOrInAnothers) {
  second_ = Channel("second");
  auto third = Channel("third");
  third->on_turn = [&]() -> std::optional<ChannelTurn> {
    third.reset();
    return std::nullopt;
  };
  first_->on_turn = [this]() -> std::optional<ChannelTurn> {
    second_.reset();
    return ChannelTurn{};
  };
  Run([&] {
    spinner_.Add(*third);
    spinner_.Add(*first_);
    spinner_.Add(*second_);
  });
  EXPECT_EQ(third, nullptr);
  EXPECT_EQ(first_->sleeps, 1);
}

TEST_F(SpinnerTest, AChannelMayBeAwakeWhenTheThreadEnds) {
  RunUntil([] { return true; }, [this] { spinner_.Add(*first_); });
  EXPECT_TRUE(first_->awake());
  first_.reset();
}

TEST_F(SpinnerTest, WhatArrivedWhileItFellAsleepWakesTheChannelAgain) {
  first_->on_sleep = [this] {
    if (first_->sleeps < 3) boost::asio::post(context_, [this] { spinner_.Add(*first_); });
  };
  RunUntil([this] { return first_->sleeps == 3; }, [this] { spinner_.Add(*first_); });
  EXPECT_EQ(first_->sleeps, 3);
}

// A guest that asks a little too late each time, and one that asks once a second.
TEST_F(SpinnerTest, AGuestThatIsAlwaysTooLateCostsNextToNothing) {
  for (const microseconds pause : {microseconds{60}, microseconds{1'000'000}}) {
    first_ = Channel("late");
    const uint64_t spun_before = spinner_.status().spin_ns;
    constexpr int kRequests = 20'000;
    const Time begin = fake_now;
    for (int request = 0; request < kRequests; ++request) {
      Run([this] { spinner_.Add(*first_); });
      fake_now += pause;
    }
    const double spun = static_cast<double>(spinner_.status().spin_ns - spun_before);
    const double passed = static_cast<double>(nanoseconds(fake_now - begin).count());
    EXPECT_GT(spun, 0) << pause.count();
    // A round a request tells that nothing is there; the looks come on top.
    EXPECT_LT(spun / passed, 0.02) << pause.count();
  }
}

}  // namespace
}  // namespace vmbfs::hyperv
