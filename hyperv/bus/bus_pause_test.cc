// Pause and resume (shared/specs/vmbus.md 3.8): nothing reaches a guest that
// pauses, and nothing is lost to one that resumes.

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class BusPauseTest : public BusTest {
 protected:
  // IMC is channel 1 and open on GPADL 5, boot is channel 2 and closed.
  void SetUp() override {
    boot_ = Offer(kBoot);
    imc_ = Offer(kImc);
    ContactWithFeatures(0x20);
    RequestOffers();
    CreateGpadl(1, 5);
    CreateGpadl(2, 5);
    Open(1);
    bus_.OpenDone(imc_, absl::OkStatus());
    log();
  }
  void Pause() { Post(MessageBytes(27, 8)); }
  void Resume() { Post(MessageBytes(29, 8)); }

  OfferId boot_{};
};

TEST_F(BusPauseTest, PauseIsAnsweredFirstAndWhatFollowsWaitsInOrderForResume) {
  Open(2);
  Modify(1, 3);
  log();
  Pause();
  EXPECT_THAT(port_.sent().back().bytes,
              testing::ElementsAreArray(MessageBytes::FromHex("1c000000 00000000")));
  EXPECT_THAT(log(), ElementsAre("pause response"));
  EXPECT_TRUE(bus_.status().paused);

  bus_.ModifyDone(imc_, absl::OkStatus());
  bus_.OpenDone(boot_, absl::OkStatus());
  ASSERT_TRUE(bus_.Offer(PipeOffer(kInterface)).ok());
  bus_.Revoke(imc_);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("port: close offer2"));
  EXPECT_EQ(bus_.status().messages_held, 4u);
  const uint64_t sent = bus_.status().messages_sent;

  Resume();
  EXPECT_THAT(log(), ElementsAre("modify response 1 ok", "open result 2 open_id=77 ok", "offer 3",
                                 "rescind 1"));
  EXPECT_FALSE(bus_.status().paused);
  EXPECT_EQ(bus_.status().messages_held, 0u);
  EXPECT_EQ(bus_.status().messages_sent, sent + 4);
  ReleaseId(1);
  EXPECT_THAT(log(), ElementsAre("port: released offer2"));
}

TEST_F(BusPauseTest, OtherRequestsOfAGuestThatPausesAreDropped) {
  Pause();
  log();
  const uint64_t dropped = bus_.status().messages_dropped;
  for (uint32_t type = 0; type < 32; ++type) {
    if (type == 14 || type == 16 || type == 29) continue;
    Post(MessageBytes(type, 240).U32(8, 1));
  }
  EXPECT_EQ(bus_.status().messages_dropped, dropped + 29);
  EXPECT_THAT(log(), IsEmpty());
  Resume();
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(StateOf(imc_), "open");
}

TEST_F(BusPauseTest, ResumeWithoutPauseAndPauseWithoutTheFeatureAreDropped) {
  Resume();
  EXPECT_EQ(bus_.status().messages_dropped, 1u);
  bus_.Reset();
  bus_.CloseDone(imc_);
  ContactWithFeatures(0xDF);
  log();
  Pause();
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_FALSE(bus_.status().paused);
}

TEST_F(BusPauseTest, UnloadDropsWhatIsHeldAndIsAnswered) {
  Open(2);
  Pause();
  bus_.OpenDone(boot_, absl::OkStatus());
  log();
  Unload();
  bus_.CloseDone(boot_);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("port: close offer2", "port: close offer1", "unload complete"));
  ExpectFreshGuestIsServed();
}

// Statement 18.
TEST_F(BusPauseTest, ContactDropsWhatIsHeldAndIsAnsweredWithNothingBetween) {
  Pause();
  bus_.Revoke(boot_);
  EXPECT_EQ(bus_.status().messages_held, 1u);
  log();
  Contact(0x00060000);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("port: close offer2", "port: released offer1",
                                 "version state=0 word=0x1 features=0x0"));
  EXPECT_FALSE(bus_.status().paused);
  EXPECT_EQ(bus_.status().messages_held, 0u);
}

TEST_F(BusPauseTest, ContactThatIsNotForThisServerLeavesThePause) {
  Pause();
  log();
  Post(ContactMessage(0x00060000).U8(16, 5), 4);
  Post(ContactMessage(0x00060000).U8(16, 2).U8(17, 1), 4);
  EXPECT_THAT(log(), ElementsAre("unsupported @sint5"));
  EXPECT_TRUE(bus_.status().paused);
}

TEST_F(BusPauseTest, ResetDropsWhatIsHeldAndAFreshGuestIsServed) {
  Pause();
  bus_.Revoke(boot_);
  bus_.Reset();
  EXPECT_FALSE(bus_.status().paused);
  EXPECT_EQ(bus_.status().messages_held, 0u);
  bus_.CloseDone(imc_);
  ExpectFreshGuestIsServed();
}

// The longest that a channel can come to: a modify's result or a reopen's, the
// GpadlTorndown of its first ring, a Rescind; an offer and a Rescind where the
// guest has none yet.
TEST_F(BusPauseTest, HeldMessagesAreAtMostThreeAChannelHoweverTheHostActs) {
  Close(1);
  Open(1, 5);
  TearDownGpadl(1, 5);  // waits for the close
  Pause();
  log();
  bus_.CloseDone(imc_);
  bus_.Revoke(imc_);
  for (int i = 0; i < 100; ++i) {
    const OfferId again = Offer(kImc);  // waits for the release of the first
    bus_.Revoke(again);
  }
  const OfferId added = Offer(kInterface);
  bus_.Revoke(added);
  EXPECT_EQ(bus_.status().messages_held, 5u);
  log();
  Resume();
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 5", "open result 1 open_id=77 0x8000ffff",
                                 "rescind 1", "offer 3", "rescind 3"));
}

}  // namespace
}  // namespace vmbfs::hyperv
