// Offers, revokes and releases: statements 21 to 27 and 45 to 48 of
// shared/specs/vmbus.md section 13.

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

class BusOffersTest : public BusTest {};

// Statement 21.
// Statement 22.
TEST_F(BusOffersTest, ImcOfferHasTheExactBytesOfTheSpecification) {
  ConnectWithOneChannel();
  std::vector<std::byte> expected = MessageBytes::FromHex(
      "01 00 00 00 00 00 00 00 c3 c1 76 c3 76 d2 d2 48"
      "90 a9 c0 47 48 07 2c 60 d1 e7 e5 c4 48 d7 fc 4a"
      "97 9d 68 31 67 91 0a 55 00 00 00 00 00 00 00 00"
      "00 00 00 00 00 00 00 00 10 00 00 00 04 00 00 00");
  expected.resize(0xb8);
  const auto tail = MessageBytes::FromHex("01 00 00 00 ff 00 01 00 01 20 00 00");
  expected.insert(expected.end(), tail.begin(), tail.end());
  ASSERT_EQ(port_.sent().size(), 3u);
  EXPECT_THAT(port_.sent()[1].bytes, ElementsAreArray(expected));
}

// Statement 23.
TEST_F(BusOffersTest, FlagsOfFeaturesNobodyAgreedToAreCleared) {
  ChannelOffer offer = PipeOffer(kImc);
  offer.flags = 0xFFFF;
  ASSERT_TRUE(bus_.Offer(offer).ok());
  Contact(0x00060000);
  RequestOffers();
  EXPECT_EQ(NumberAt(port_.sent()[1].bytes, 56, 2), 0xFFF1u);
}

// Statement 24.
// Statement 25.
TEST_F(BusOffersTest, OffersComeOnceAndInStableOrderWithOneEnd) {
  // Offered in the other order; IMC's wire bytes come first.
  Offer(kBoot);
  Offer(kImc);
  for (int connection = 0; connection < 2; ++connection) {
    Contact(0x00050003);
    log();
    RequestOffers();
    EXPECT_THAT(log(), ElementsAre("offer 1", "offer 2", "all offers delivered"));
    RequestOffers();
    EXPECT_THAT(log(), IsEmpty());
    EXPECT_EQ(NumberAt(port_.sent().at(port_.sent().size() - 3).bytes, 24, 4), 0xC4E5E7D1u);
  }
}

// Statement 26.
TEST_F(BusOffersTest, DeviceAddedBeforeRequestOffersIsOnlyInTheListAndLaterAtOnce) {
  Contact(0x00050003);
  log();
  Offer(kBoot);
  EXPECT_THAT(log(), IsEmpty());
  RequestOffers();
  EXPECT_THAT(log(), ElementsAre("offer 1", "all offers delivered"));
  Offer(kImc);
  EXPECT_THAT(log(), ElementsAre("offer 2"));
}

// Statement 27.
TEST_F(BusOffersTest, DuplicateKeyIsRefusedAndAnotherSubchannelIsNot) {
  Offer(kImc);
  EXPECT_TRUE(absl::IsAlreadyExists(bus_.Offer(PipeOffer(kImc)).status()));
  ChannelOffer subchannel = PipeOffer(kImc);
  subchannel.subchannel_index = 1;
  EXPECT_TRUE(bus_.Offer(subchannel).ok());
}

// Statement 25.
TEST_F(BusOffersTest, ChannelsAreBoundedAndTheirIdsAreUniqueFrom1To2047) {
  for (uint32_t i = 0; i < 2047; ++i) {
    Guid instance;
    instance.bytes[0] = static_cast<std::byte>(i & 0xFF);
    instance.bytes[1] = static_cast<std::byte>(i >> 8);
    ASSERT_TRUE(bus_.Offer(PipeOffer(instance)).ok()) << i;
  }
  EXPECT_TRUE(absl::IsResourceExhausted(bus_.Offer(PipeOffer(kImc)).status()));
  Contact(0x00050003);
  log();
  RequestOffers();
  const auto sent = log();
  ASSERT_EQ(sent.size(), 2048u);
  for (uint32_t i = 0; i < 2047; ++i) EXPECT_EQ(sent[i], absl::StrCat("offer ", i + 1));
}

TEST_F(BusOffersTest, RevokeOfAnOfferTheGuestNeverSawReleasesAtOnce) {
  imc_ = Offer(kImc);
  bus_.Revoke(imc_);
  EXPECT_THAT(log(), ElementsAre("port: released offer1"));
  EXPECT_THAT(bus_.channels(), IsEmpty());
}

// Statement 45.
TEST_F(BusOffersTest, RevokeOfAClosedChannelRescindsAndWaitsForTheRelease) {
  ConnectWithOneChannel();
  bus_.Revoke(imc_);
  EXPECT_THAT(log(), ElementsAre("rescind 1"));
  EXPECT_EQ(StateOf(imc_), "revoked");
  Open(1);
  Close(1);  // neither has an answer
  EXPECT_THAT(log(), IsEmpty());
  ReleaseId(1);
  EXPECT_THAT(log(), ElementsAre("port: released offer1"));
  ReleaseId(1);
  EXPECT_THAT(log(), IsEmpty());
}

TEST_F(BusOffersTest, RevokeOfAnOpenChannelClosesBeforeItRescinds) {
  ConnectAndOpen();
  bus_.Revoke(imc_);
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  EXPECT_EQ(bus_.RingPageFrames(imc_).size(), 10u);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("rescind 1"));
  EXPECT_TRUE(bus_.RingPageFrames(imc_).empty());
}

TEST_F(BusOffersTest, RevokeOfAnOpeningChannelGivesNoOpenResult) {
  ConnectWithOneChannel();
  CreateGpadl(1, 5);
  Open(1);
  log();
  bus_.Revoke(imc_);
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("rescind 1"));
}

TEST_F(BusOffersTest, RevokeWhileClosingForgetsTheNextOpen) {
  ConnectAndOpen();
  Close(1);
  Open(1);
  log();
  bus_.Revoke(imc_);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("rescind 1"));
}

// Statement 45.
TEST_F(BusOffersTest, TeardownThatWaitsIsAnsweredBeforeTheRescindAndOthersAreKept) {
  ConnectAndOpen();
  CreateGpadl(1, 6);
  TearDownGpadl(1, 5);
  log();
  bus_.Revoke(imc_);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("port: close offer1", "gpadl torndown 5", "rescind 1"));
  TearDownGpadl(1, 6);
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 6"));
}

TEST_F(BusOffersTest, GpadlsOfARevokedChannelAreAnsweredAtOnce) {
  ConnectWithOneChannel();
  const auto messages = GpadlMessages(1, 6, 100, false);
  Post(messages[0]);
  bus_.Revoke(imc_);
  for (size_t i = 1; i < messages.size(); ++i) Post(messages[i]);
  CreateGpadl(1, 7);
  TearDownGpadl(1, 7);
  EXPECT_THAT(log(), ElementsAre("rescind 1", "gpadl created 1/6 ok", "gpadl created 1/7 ok",
                                 "gpadl torndown 7"));
}

// Statement 46.
TEST_F(BusOffersTest, ReofferWaitsForTheReleaseAndKeepsTheId) {
  Offer(kBoot);
  ConnectWithOneChannel();  // IMC is 1, boot is 2
  bus_.Revoke(imc_);
  log();
  const OfferId again = Offer(kImc);
  EXPECT_EQ(StateOf(again), "reoffered");
  EXPECT_TRUE(absl::IsAlreadyExists(bus_.Offer(PipeOffer(kImc)).status()));
  EXPECT_THAT(log(), IsEmpty());
  ReleaseId(1);
  EXPECT_THAT(log(), ElementsAre("port: released offer2", "offer 1"));
  EXPECT_EQ(StateOf(again), "closed");
}

// Statement 46.
TEST_F(BusOffersTest, ReofferKeepsTheIdAlsoWhenALowerOneIsFree) {
  const OfferId boot = Offer(kBoot);
  ConnectWithOneChannel();
  ReleaseId(1);
  bus_.Revoke(boot);
  Offer(kBoot);
  log();
  ReleaseId(2);
  EXPECT_THAT(log(), ElementsAre("port: released offer1", "offer 2"));
}

TEST_F(BusOffersTest, AnswersForOffersThatAreGoneAreIgnored) {
  ConnectWithOneChannel();
  bus_.Revoke(imc_);
  const OfferId again = Offer(kImc);
  ReleaseId(1);
  bus_.Revoke(again);
  ReleaseId(1);
  log();
  for (const OfferId offer : {imc_, again}) {
    bus_.OpenDone(offer, absl::OkStatus());
    bus_.CloseDone(offer);
    bus_.ModifyDone(offer, absl::OkStatus());
    EXPECT_TRUE(bus_.RingPageFrames(offer).empty());
  }
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_THAT(bus_.channels(), IsEmpty());
}

// Statement 46.
TEST_F(BusOffersTest, ReofferWhileTheOldDeviceStillClosesWaitsForBoth) {
  ConnectAndOpen();
  bus_.Revoke(imc_);
  const OfferId again = Offer(kImc);
  ReleaseId(1);
  EXPECT_EQ(StateOf(imc_), "closing-release");
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  bus_.CloseDone(again);  // not the one that closes
  EXPECT_THAT(log(), IsEmpty());
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("port: released offer1", "offer 1"));
  EXPECT_EQ(StateOf(again), "closed");
}

TEST_F(BusOffersTest, RevokeOfAWaitingReofferReleasesItWithoutASecondRescind) {
  ConnectWithOneChannel();
  bus_.Revoke(imc_);
  log();
  const OfferId again = Offer(kImc);
  bus_.Revoke(again);
  EXPECT_THAT(log(), ElementsAre("port: released offer2"));
  ReleaseId(1);
  EXPECT_THAT(log(), ElementsAre("port: released offer1"));
}

TEST_F(BusOffersTest, DisconnectOfAReofferedChannelOffersItNextTime) {
  ConnectWithOneChannel();
  bus_.Revoke(imc_);
  const OfferId again = Offer(kImc);
  log();
  Unload();
  EXPECT_THAT(log(), ElementsAre("port: released offer1", "unload complete"));
  EXPECT_EQ(StateOf(again), "released");
  ExpectFreshGuestIsServed();
}

// Statement 48.
TEST_F(BusOffersTest, GuestThatNeverReleasesHoldsUpNeitherUnloadNorReset) {
  for (const bool reset : {false, true}) {
    ConnectWithOneChannel(0x00060000);
    bus_.Revoke(imc_);
    reset ? bus_.Reset() : Unload();
    EXPECT_THAT(bus_.channels(), IsEmpty());
    EXPECT_EQ(bus_.status().state, "disconnected");
  }
}

// Statement 47.
TEST_F(BusOffersTest, ReleaseFreesAllGpadlsSilentlyAndTheirIdsWorkOnTheReoffer) {
  ConnectAndOpen();
  CreateGpadl(1, 6);
  Post(GpadlMessages(1, 7, 100, false)[0]);
  bus_.Revoke(imc_);
  bus_.CloseDone(imc_);
  Offer(kImc);
  log();
  ReleaseId(1);
  EXPECT_THAT(log(), ElementsAre("port: released offer1", "offer 1"));
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
  for (const uint32_t gpadl : {5, 6, 7}) CreateGpadl(1, gpadl);
  EXPECT_THAT(log(),
              ElementsAre("gpadl created 1/5 ok", "gpadl created 1/6 ok", "gpadl created 1/7 ok"));
}

TEST_F(BusOffersTest, ReleaseOfAClosedChannelGivesItsIdToTheNextOffer) {
  ConnectWithOneChannel();
  ReleaseId(1);
  EXPECT_EQ(StateOf(imc_), "released");
  CreateGpadl(1, 5);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 0x8000ffff"));
  Offer(kBoot);
  EXPECT_THAT(log(), ElementsAre("offer 1"));
  // The released one is offered again with the next connection, and can be taken back.
  bus_.Revoke(imc_);
  EXPECT_THAT(log(), ElementsAre("port: released offer1"));
}

TEST_F(BusOffersTest, ReleaseWhileClosingTakesEffectAfterTheClose) {
  ConnectAndOpen();
  Close(1);
  ReleaseId(1);
  EXPECT_EQ(StateOf(imc_), "closing-release");
  EXPECT_EQ(bus_.RingPageFrames(imc_).size(), 10u);
  bus_.CloseDone(imc_);
  EXPECT_EQ(StateOf(imc_), "released");
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
}

}  // namespace
}  // namespace vmbfs::hyperv
