// Negotiation, unload and reset: statements 7 to 20 and 48 to 51 of
// shared/specs/vmbus.md section 13.

#include <utility>

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint32_t kServedVersions[] = {0x00020004, 0x00030000, 0x00040000, 0x00040001, 0x00050000,
                                        0x00050001, 0x00050002, 0x00050003, 0x00060000};

class BusConnectionTest : public BusTest {};

// Statement 14.
TEST_F(BusConnectionTest, FirmwareContactGetsTheExactReplyOfTheSpecification) {
  Post(
      MessageBytes::FromHex("0e 00 00 00 00 00 00 00 00 00 06 00 00 00 00 00"
                            "00 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00"
                            "00 00 00 00 00 00 00 00 64 39 dd 18 8a 3e 42 4e"
                            "86 fa c8 e6 b1 91 ee 0e"));
  ASSERT_EQ(port_.sent().size(), 1u);
  EXPECT_EQ(port_.sent()[0].vp, 0u);
  EXPECT_EQ(port_.sent()[0].sint, 2);
  EXPECT_THAT(port_.sent()[0].bytes,
              ElementsAreArray(MessageBytes::FromHex(
                  "0f 00 00 00 00 00 00 00 01 00 00 00 01 00 00 00 08 00 00 00")));
  EXPECT_EQ(bus_.status().version, "6.0");
  EXPECT_EQ(bus_.status().features, 8u);
}

// Statement 9.
// Statement 10.
TEST_F(BusConnectionTest, EachSupportedVersionIsAcceptedOnBothConnections) {
  for (const uint32_t version : kServedVersions) {
    for (const uint32_t connection : {1u, 4u}) {
      // As Linux asks; below 5.0 the SINT's place is the interrupt page's.
      Post(ContactMessage(version).U8(16, 2).U64(24, 0x1000).U64(32, 0x2000), connection);
      std::string expected =
          absl::StrCat("version state=0 word=0x", absl::Hex(version < 0x00050000 ? version : 1));
      if (version == 0x00060000) expected += " features=0x0";
      EXPECT_THAT(log(), ElementsAre(expected)) << version;
      EXPECT_EQ(bus_.status().state, "connected");
      RequestOffers();  // on connection 1, which the answer names
      EXPECT_THAT(log(), ElementsAre("all offers delivered"));
    }
  }
}

// Statement 11.
TEST_F(BusConnectionTest, UnknownVersionsAreRefusedAndALaterAttemptSucceeds) {
  Offer(kImc);
  for (const uint32_t version :
       {0u, 0x0001FFFFu, 0x0000000Du, 0x00010001u, 0x00050004u, 0x00060001u, 0x00070000u}) {
    Contact(version);
    EXPECT_THAT(log(), ElementsAre("unsupported")) << version;
    EXPECT_EQ(bus_.status().state, "disconnected");
  }
  ExpectFreshGuestIsServed();
}

TEST_F(BusConnectionTest, LinuxFindsTheNewestVersionFirst) {
  Post(ContactMessage(0x00060000).U8(16, 2).U64(24, 0x1000).U64(32, 0x2000), 4);
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1 features=0x0"));
}

// Statement 12.
TEST_F(BusConnectionTest, FeaturesAreThoseOfBothSidesAndUnknownBitsAreCleared) {
  for (const auto& [requested, answered] :
       {std::pair{0xFFFFFFFFu, "2d"}, {0x6Fu, "2d"}, {0x67u, "25"}, {0xD2u, "0"}}) {
    Post(MessageBytes(14, 56).U32(8, 0x00060000).U32(20, requested));
    EXPECT_THAT(log(), ElementsAre(absl::StrCat("version state=0 word=0x1 features=0x", answered)));
  }
  Post(MessageBytes(14, 56).U32(8, 0x00050003).U32(20, 0xFFFFFFFF));  // 5.3 has none
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1"));
  EXPECT_EQ(bus_.status().features, 0u);
}

// Statement 13.
TEST_F(BusConnectionTest, ClientIdFlagWithTheShortFormGetsNoReply) {
  Post(ContactMessage(0x00060000).U32(20, 8));
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.status().state, "disconnected");
}

// Statement 15.
TEST_F(BusConnectionTest, AnotherSintOnConnection4IsRefusedThereAndChangesNothing) {
  ConnectAndOpen();
  Post(ContactMessage(0x00060000).U32(12, 3).U8(16, 5), 4);
  EXPECT_THAT(log(), ElementsAre("unsupported @vp3 @sint5"));
  EXPECT_EQ(StateOf(imc_), "open");
  Post(ContactMessage(0x00060000).U8(16, 16), 4);  // no such SINT
  EXPECT_THAT(log(), IsEmpty());
  Post(ContactMessage(0x00060000).U8(16, 5), 1);  // means nothing there
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), Contains("version state=0 word=0x1 features=0x0"));
}

// Statement 15.
TEST_F(BusConnectionTest, AnotherTrustLevelOnConnection4GetsNoReply) {
  Post(ContactMessage(0x00050001).U8(16, 2).U8(17, 1), 4);
  EXPECT_THAT(log(), IsEmpty());
  Post(ContactMessage(0x00050000).U8(16, 2).U8(17, 1), 4);  // 5.0 has no such field
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1"));
}

// Statement 16.
TEST_F(BusConnectionTest, TargetVpCountsFrom30On) {
  Post(ContactMessage(0x00030000).U32(12, 3));
  RequestOffers();
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x30000 @vp3", "all offers delivered @vp3"));
  EXPECT_EQ(bus_.status().target_vp, 3u);
  Post(ContactMessage(0x00020004).U32(12, 3));
  RequestOffers();
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x20004", "all offers delivered"));
}

// Statement 17.
TEST_F(BusConnectionTest, ExactlyOneMonitorPageGivesState2AndNoConnection) {
  Post(ContactMessage(0x00060000).U64(24, 0x1000).U64(32, 0x2000));
  EXPECT_EQ(bus_.status().state, "connected");
  Contact(0x00060000);
  EXPECT_EQ(bus_.status().state, "connected");
  log();
  for (const size_t offset : {24, 32}) {
    Post(ContactMessage(0x00020004).U64(offset, 0x1000));
    Post(ContactMessage(0x00060000).U64(offset, 0x1000));
    EXPECT_THAT(log(), ElementsAre("version state=2 word=0x20004",
                                   "version state=2 word=0x1 features=0x0"));
    EXPECT_EQ(bus_.status().state, "disconnected");
  }
}

// Statement 18.
TEST_F(BusConnectionTest, ContactWhileConnectedClosesFirstAndAnswersThenWithNothingBetween) {
  ConnectAndOpen();
  TearDownGpadl(1, 5);
  Contact(0x00060000);
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  EXPECT_EQ(bus_.status().state, "disconnecting");
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1 features=0x0"));
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
}

// Statement 19.
TEST_F(BusConnectionTest, UnsupportedVersionWhileConnectedEndsTheOldConnection) {
  ConnectAndOpen();
  Contact(0x00070000);
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("unsupported"));
  EXPECT_EQ(bus_.status().state, "disconnected");
  EXPECT_EQ(StateOf(imc_), "released");
}

// Statement 20.
TEST_F(BusConnectionTest, BeforeContactEverythingElseIsDropped) {
  Offer(kImc);
  for (uint32_t type = 0; type < 32; ++type) {
    if (type == 14) continue;
    Post(MessageBytes(type, 240));
    EXPECT_THAT(log(), IsEmpty()) << type;
  }
  EXPECT_EQ(bus_.status().messages_dropped, 31u);
  ExpectFreshGuestIsServed();
}

// Statement 7.
// Statement 8.
TEST_F(BusConnectionTest, BadMessagesAndHostTypesAreDroppedAndTheConnectionGoesOn) {
  ConnectAndOpen();
  const uint64_t dropped_before = bus_.status().messages_dropped;
  for (size_t size = 0; size < 8; ++size) Post(std::vector<std::byte>(size));
  for (const uint32_t type : {0u, 30u, 0xFFFFFFFFu, 1u, 2u, 4u, 6u, 10u, 12u, 15u, 17u, 20u, 23u,
                              24u, 26u, 28u, 25u, 27u, 29u}) {
    Post(MessageBytes(type, 240));
  }
  Post(MessageBytes(14, 241));
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.status().messages_dropped - dropped_before, 28u);
  EXPECT_EQ(StateOf(imc_), "open");
}

TEST_F(BusConnectionTest, OtherConnectionsAreDropped) {
  for (const uint32_t connection : {0u, 2u, 3u, 5u, 0x800074u, 0xFFFFFFFFu}) {
    Post(ContactMessage(0x00060000), connection);
  }
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.status().messages_received, 6u);
  EXPECT_EQ(bus_.status().messages_dropped, 6u);
  EXPECT_EQ(bus_.status().last_drop_reason, "message to connection 4294967295");
}

TEST_F(BusConnectionTest, SocketConnectIsRefusedFrom41OnAndSilentBefore) {
  Contact(0x00040000);
  Post(MessageBytes(21, 40));
  Contact(0x00040001);
  Post(MessageBytes(21, 40));
  Contact(0x00050002);
  Post(MessageBytes(21, 56));
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x40000", "version state=0 word=0x40001",
                                 "connect result 0xc0000236", "version state=0 word=0x1",
                                 "connect result 0xc0000236"));
}

TEST_F(BusConnectionTest, UnloadOfAnIdleConnectionIsAnsweredAtTheOldProcessor) {
  Post(ContactMessage(0x00030000).U32(12, 3));
  log();
  Unload();
  EXPECT_THAT(log(), ElementsAre("unload complete @vp3"));
  EXPECT_EQ(bus_.status().state, "disconnected");
  EXPECT_EQ(bus_.status().version, "");
}

// Statement 49.
// Statement 50.
TEST_F(BusConnectionTest, UnloadIsAnsweredOnceAndLastWhenEveryDeviceHasClosed) {
  // An open, an opening, a closing and a revoked channel, and an incomplete GPADL.
  std::vector<OfferId> offers;
  for (uint8_t i = 0; i < 4; ++i) {
    Guid instance;
    instance.bytes[0] = std::byte{i};
    offers.push_back(Offer(instance));
  }
  Contact(0x00050003);
  RequestOffers();
  for (uint32_t channel = 1; channel <= 3; ++channel) {
    CreateGpadl(channel, channel);
    Open(channel, channel);
  }
  bus_.OpenDone(offers[0], absl::OkStatus());
  bus_.OpenDone(offers[2], absl::OkStatus());
  Close(3);
  bus_.Revoke(offers[3]);
  Post(GpadlMessages(2, 99, 100, false)[0]);
  log();

  Unload();
  EXPECT_THAT(log(),
              ElementsAre("port: close offer1", "port: close offer2", "port: released offer4"));
  Unload();  // no second answer
  bus_.CloseDone(offers[2]);
  bus_.OpenDone(offers[1], absl::OkStatus());
  bus_.CloseDone(offers[1]);
  EXPECT_THAT(log(), IsEmpty());
  bus_.CloseDone(offers[0]);
  EXPECT_THAT(log(), ElementsAre("unload complete"));
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
  ExpectFreshGuestIsServed();
}

// Statement 50.
TEST_F(BusConnectionTest, ContactWhileUnloadDrainsTakesItsPlace) {
  ConnectAndOpen();
  Unload();
  Contact(0x00040000);
  Contact(0x00050003);  // the newest counts
  log();
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1"));
}

// Statement 49.
TEST_F(BusConnectionTest, FirmwareExitWithEverythingOpenIsOneUnloadComplete) {
  ConnectAndOpen(0x00060000);
  Unload();
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("unload complete"));
}

TEST_F(BusConnectionTest, ResetWhileDisconnectedOnlyDropsQueuedMessages) {
  bus_.Reset();
  EXPECT_THAT(log(), ElementsAre("port: drop queued messages"));
}

TEST_F(BusConnectionTest, ResetCancelsTheAnswerToUnload) {
  ConnectAndOpen();
  Unload();
  bus_.Reset();
  log();
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), IsEmpty());
  ExpectFreshGuestIsServed();
}

TEST_F(BusConnectionTest, ContactAfterResetWaitsForTheCloseAndIsServed) {
  ConnectAndOpen();
  bus_.Reset();
  EXPECT_THAT(log(), ElementsAre("port: drop queued messages", "port: close offer1"));
  Contact(0x00050003);
  EXPECT_THAT(log(), IsEmpty());
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1"));
}

// Brings IMC (channel 1) into a state, by its name in BusChannelStatus.
class BusResetTest : public BusTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void Reach(const std::string& state) {
    if (state == "released") {
      imc_ = Offer(kImc);
      return;
    }
    if (state == "closed" || state == "opening") {
      ConnectWithOneChannel();
      CreateGpadl(1, 5);
      if (state == "opening") Open(1);
      return;
    }
    ConnectAndOpen();
    if (state == "open") return;
    if (state == "revoking" || state == "revoked") {
      bus_.Revoke(imc_);
      if (state == "revoked") bus_.CloseDone(imc_);
      return;
    }
    Close(1);
    if (state == "closing-reopen") Open(1);
    if (state == "closing-release") ReleaseId(1);
  }
};

// Statement 51.
TEST_P(BusResetTest, ResetLeavesABusThatServesAFreshGuest) {
  Reach(GetParam());
  ASSERT_EQ(StateOf(imc_), GetParam());
  bus_.Reset();
  bus_.OpenDone(imc_, absl::OkStatus());
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), Not(Contains(HasSubstr("BAD"))));
  EXPECT_EQ(bus_.status().state, "disconnected");
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
  if (StateOf(imc_) == "gone") Offer(kImc);
  ExpectFreshGuestIsServed();
}

// Statement 49.
TEST_P(BusResetTest, UnloadIsAnsweredExactlyOnce) {
  Reach(GetParam());
  if (std::string(GetParam()) == "released") Contact(0x00050003);
  log();
  Unload();
  bus_.OpenDone(imc_, absl::OkStatus());
  bus_.CloseDone(imc_);
  const std::vector<std::string> after = log();
  EXPECT_EQ(std::count(after.begin(), after.end(), "unload complete"), 1);
  EXPECT_EQ(after.back(), "unload complete");
  EXPECT_TRUE(bus_.RingPageFrames(imc_).empty());
}

INSTANTIATE_TEST_SUITE_P(EachState, BusResetTest,
                         ::testing::Values("released", "closed", "opening", "open", "closing",
                                           "closing-reopen", "revoking", "revoked",
                                           "closing-release"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace vmbfs::hyperv
