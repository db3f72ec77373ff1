#include "core/log/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "core/log/escape.h"
#include "core/log/rate_limiter.h"

namespace vmbfs::log {
namespace {

using std::chrono::seconds;

TEST(Log, LineHasUtcTimeLevelAndText) {
  testing::internal::CaptureStderr();
  const auto logger = MakeStderrLogger(spdlog::level::info);
  logger->debug("below the level");
  logger->warn("channel faulted (vm={})", "web-7");
  logger->flush();
  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_THAT(written, testing::MatchesRegex(
                           "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "
                           "warning channel faulted \\(vm=web-7\\)\n"));
}

TEST(Log, UnknownLevelIsRefusedWithTheKnownOnes) {
  const absl::Status status = SetUpDefaultLogger("loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "no log level is called \"loud\"; there are trace, debug, info, warning, error, "
            "critical, off");
  EXPECT_EQ(LevelFromName("warning").value(), spdlog::level::warn);
}

TEST(Escape, ControlAndHighBytesBecomeEscapes) {
  EXPECT_EQ(Escape("web-7"), "web-7");
  EXPECT_EQ(Escape("a\n\x1b[31m\\\xc3\xa4"), "a\\n\\x1b[31m\\\\\\xc3\\xa4");
}

TEST(Escape, LongTextIsCutVisibly) {
  EXPECT_EQ(Escape("abcdef", 6), "abcdef");
  EXPECT_EQ(Escape("abcdefgh", 6), "abcdef... (2 more bytes)");
}

class RateLimiterTest : public testing::Test {
 protected:
  std::chrono::steady_clock::time_point now_{seconds{1000}};
  RateLimiter limiter_{seconds{10}, [this] { return now_; }};
};

TEST_F(RateLimiterTest, SecondLineWithinTheIntervalIsHeldBackAndCounted) {
  EXPECT_EQ(limiter_.Admit("imc"), 0u);
  now_ += seconds{9};
  EXPECT_EQ(limiter_.Admit("imc"), std::nullopt);
  EXPECT_EQ(limiter_.Admit("imc"), std::nullopt);
  now_ += seconds{1};
  EXPECT_EQ(limiter_.Admit("imc"), 2u);
  now_ += seconds{10};
  EXPECT_EQ(limiter_.Admit("imc"), 0u);
}

TEST_F(RateLimiterTest, KeysDoNotHoldEachOtherBack) {
  EXPECT_EQ(limiter_.Admit("imc"), 0u);
  EXPECT_EQ(limiter_.Admit("boot"), 0u);
}

TEST_F(RateLimiterTest, BeyondTheBoundTheOldestKeyIsForgotten) {
  for (size_t i = 0; i <= RateLimiter::kKeysMax; ++i) {
    now_ += std::chrono::milliseconds{1};
    EXPECT_EQ(limiter_.Admit("key " + std::to_string(i)), 0u);
  }
  EXPECT_EQ(limiter_.Admit("key 2"), std::nullopt);
  EXPECT_EQ(limiter_.Admit("key 0"), 0u);
}

}  // namespace
}  // namespace vmbfs::log
