// What only MEDIATED delivery has: one message at a time with the VMM.

#include "hyperv/link/mediated_synic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;

class MediatedSynicTest : public ::testing::Test {
 protected:
  MediatedSynicTest() { synic_.SetRunning(true); }
  void Post(const std::string& text) { synic_.PostMessage(0, 2, std::as_bytes(std::span(text))); }

  std::vector<std::string> sent_;
  int events_requested_ = 0;
  MediatedSynic synic_{
      [this](MediatedSynic&, uint32_t, uint8_t, std::span<const std::byte> message) {
        sent_.emplace_back(reinterpret_cast<const char*>(message.data()), message.size());
      },
      [this](MediatedSynic&, uint32_t, uint16_t) { ++events_requested_; }};
};

TEST_F(MediatedSynicTest, NextMessageIsSentWhenTheFirstWasDelivered) {
  Post("a");
  Post("b");
  synic_.EndOfMessage(0, 2);
  synic_.Retry();
  EXPECT_THAT(sent_, ElementsAre("a"));
  synic_.MessageDone(0, 2, LinkMsgResult::kDelivered);
  EXPECT_THAT(sent_, ElementsAre("a", "b"));
  synic_.MessageDone(0, 2, LinkMsgResult::kDelivered);
  EXPECT_EQ(synic_.queued_messages(), 0u);
}

TEST_F(MediatedSynicTest, BusyIsTriedAgainAtEomSynicAndRetryAndNoPageNotAtRetry) {
  Post("a");
  synic_.MessageDone(0, 2, LinkMsgResult::kBusy);
  EXPECT_EQ(sent_.size(), 1u);
  synic_.EndOfMessage(0, 2);
  EXPECT_EQ(sent_.size(), 2u);
  synic_.MessageDone(0, 2, LinkMsgResult::kBusy);
  synic_.Retry();
  EXPECT_EQ(sent_.size(), 3u);
  synic_.MessageDone(0, 2, LinkMsgResult::kNoMessagePage);
  synic_.Retry();
  EXPECT_EQ(sent_.size(), 3u);
  synic_.SetRegisters(1, {});
  EXPECT_EQ(sent_.size(), 3u);
  synic_.SetRegisters(0, {});
  EXPECT_EQ(sent_.size(), 4u);
  EXPECT_EQ(synic_.queued_messages(), 1u);
}

TEST_F(MediatedSynicTest, RefusedMessageIsDroppedAndTheNextOneSent) {
  Post("a");
  Post("b");
  synic_.MessageRefused(0, 2);
  EXPECT_THAT(sent_, ElementsAre("a", "b"));
  EXPECT_EQ(synic_.dropped_messages(), 1u);
  EXPECT_EQ(synic_.queued_messages(), 1u);
}

// A reset: the answer to the old guest's message must not take a new one away.
TEST_F(MediatedSynicTest, AnswerToADroppedMessageCountsForNoOther) {
  for (const LinkMsgResult result : {LinkMsgResult::kDelivered, LinkMsgResult::kBusy}) {
    sent_.clear();
    Post("old");
    synic_.DropMessages();
    Post("new");
    EXPECT_THAT(sent_, ElementsAre("old"));
    synic_.MessageDone(0, 2, result);
    EXPECT_THAT(sent_, ElementsAre("old", "new"));
    EXPECT_EQ(synic_.queued_messages(), 1u);
    synic_.MessageDone(0, 2, LinkMsgResult::kDelivered);
    EXPECT_EQ(synic_.queued_messages(), 0u);
  }
}

TEST_F(MediatedSynicTest, AnswerWhilePausedSendsNothing) {
  Post("a");
  Post("b");
  synic_.SetRunning(false);
  synic_.MessageDone(0, 2, LinkMsgResult::kDelivered);
  EXPECT_THAT(sent_, ElementsAre("a"));
  synic_.SetRunning(true);
  EXPECT_THAT(sent_, ElementsAre("a", "b"));
}

TEST_F(MediatedSynicTest, AnswersThatNobodyWaitsForAreIgnored) {
  synic_.MessageDone(0, 2, LinkMsgResult::kDelivered);
  synic_.MessageRefused(3, 15);
  synic_.EventReady(0, 1, UniqueFd(::eventfd(0, EFD_CLOEXEC)));
  synic_.EventRefused(0, 1, absl::FailedPreconditionError("no"));
  EXPECT_EQ(synic_.queued_messages(), 0u);
  EXPECT_EQ(synic_.dropped_messages(), 0u);
}

TEST_F(MediatedSynicTest, EventIsAskedForOnceWhileItIsInUse) {
  const auto acquire = [&] { synic_.Acquire(0, 1, [](const absl::Status&) {}); };
  acquire();
  acquire();
  EXPECT_EQ(events_requested_, 1);
  synic_.EventReady(0, 1, UniqueFd(::eventfd(0, EFD_CLOEXEC)));
  acquire();
  EXPECT_EQ(events_requested_, 1);
  for (int i = 0; i < 3; ++i) synic_.Release(0, 1);
  acquire();
  EXPECT_EQ(events_requested_, 2);
}

// As DirectSynic's: a VMM may hold an event back while its guest opens and closes.
TEST_F(MediatedSynicTest, WaitersForAnEventThatNeverComesAreBounded) {
  size_t refused = 0;
  size_t ready = 0;
  const auto on_ready = [&](const absl::Status& status) {
    ready += status.ok() ? 1 : 0;
    refused += absl::IsResourceExhausted(status) ? 1 : 0;
  };
  for (size_t i = 0; i < Synic::kWaitersMax; ++i) synic_.Acquire(0, 1, on_ready);
  EXPECT_EQ(refused, 0u);
  synic_.Acquire(0, 1, on_ready);
  synic_.Acquire(0, 2, on_ready);
  EXPECT_EQ(refused, 2u);
  EXPECT_EQ(events_requested_, 1);
  synic_.EventReady(0, 1, UniqueFd(::eventfd(0, EFD_CLOEXEC)));
  EXPECT_EQ(ready, Synic::kWaitersMax);
  synic_.Acquire(0, 2, on_ready);
  EXPECT_EQ(events_requested_, 2);
  synic_.EventRefused(0, 2, absl::ResourceExhaustedError("the VMM's own reason"));
  EXPECT_EQ(refused, 3u);
  for (size_t i = 0; i < Synic::kWaitersMax; ++i) synic_.Acquire(0, 3, on_ready);
  EXPECT_EQ(refused, 3u);
}

}  // namespace
}  // namespace vmbfs::hyperv
