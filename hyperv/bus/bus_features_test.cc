// What is agreed on by feature flags: signals that the guest specifies, modify
// connection, client id (shared/specs/vmbus.md 2.2, 2.7, 3.8).

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kRefused1[] = "open result 1 open_id=77 0x8000ffff";

class GuestSignalsTest : public BusTest {
 protected:
  // IMC is channel 1, boot is channel 2; each has GPADL 5.
  void ConnectWithTwoChannels() {
    boot_ = Offer(kBoot);
    imc_ = Offer(kImc);
    Contact();
  }
  void Contact(uint32_t features = 0x01) {
    ContactWithFeatures(features);
    RequestOffers();
    for (const uint32_t channel : {1, 2}) CreateGpadl(channel, 5);
    log();
  }
  void OpenWith(uint32_t channel_id, uint32_t connection_id, uint16_t event_flag) {
    std::vector<std::byte> open = OpenMessage(channel_id, 5).bytes();
    open.resize(156, std::byte{0xFF});  // flags of interrupt redirection too
    for (size_t i = 0; i < 4; ++i) open[148 + i] = std::byte(connection_id >> (8 * i) & 0xFF);
    for (size_t i = 0; i < 2; ++i) open[152 + i] = std::byte(event_flag >> (8 * i) & 0xFF);
    Post(open);
  }
  BusChannelStatus StatusOf(uint32_t channel_id) const {
    for (const BusChannelStatus& each : bus_.channels()) {
      if (each.channel_id == channel_id) return each;
    }
    return {};
  }

  OfferId boot_{};
};

// Statement 39.
TEST_F(GuestSignalsTest, SignalsOfTheRequestAreUsedForThisOpenOnly) {
  ConnectWithTwoChannels();
  EXPECT_EQ(StatusOf(1).connection_id, 0x2001u);
  EXPECT_EQ(StatusOf(1).event_flag, 1);
  OpenWith(1, 0x00FFFFFF, 2047);
  ASSERT_THAT(port_.opens(), SizeIs(1));
  EXPECT_EQ(port_.opens()[0].connection_id, 0x00FFFFFFu);
  EXPECT_EQ(port_.opens()[0].event_flag, 2047);
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("port: open offer2", "open result 1 open_id=77 ok"));
  EXPECT_EQ(StatusOf(1).connection_id, 0x00FFFFFFu);
  EXPECT_EQ(StatusOf(1).event_flag, 2047);

  Close(1);
  EXPECT_EQ(StatusOf(1).event_flag, 2047);
  bus_.CloseDone(imc_);
  EXPECT_EQ(StatusOf(1).connection_id, 0x2001u);
  EXPECT_EQ(StatusOf(1).event_flag, 1);

  // A connection without the feature opens with the defaults.
  Contact(0);
  OpenWith(1, 0x00FFFFFF, 2047);
  EXPECT_EQ(port_.opens().back().connection_id, 0x2001u);
  EXPECT_EQ(port_.opens().back().event_flag, 1);
}

TEST_F(GuestSignalsTest, AReopenAfterCloseUsesItsOwnSignals) {
  ConnectWithTwoChannels();
  OpenWith(1, 0x5000, 50);
  bus_.OpenDone(imc_, absl::OkStatus());
  Close(1);
  OpenWith(1, 0x5001, 51);
  EXPECT_EQ(StatusOf(1).connection_id, 0x5000u);
  bus_.CloseDone(imc_);
  EXPECT_EQ(port_.opens().back().connection_id, 0x5001u);
  EXPECT_EQ(port_.opens().back().event_flag, 51);
}

// Statement 39.
TEST_F(GuestSignalsTest, SignalsThatCannotBeAreRefusedAndTheChannelStaysOpenable) {
  ConnectWithTwoChannels();
  OpenWith(1, 0x5000, 2048);
  OpenWith(1, 0x5000, 0xFFFF);
  for (const uint32_t connection : {0u, 1u, 4u, 0x01000000u, 0xFFFFFFFFu}) {
    OpenWith(1, connection, 50);
  }
  EXPECT_THAT(log(), AllOf(SizeIs(7), Each(kRefused1)));
  EXPECT_EQ(StateOf(imc_), "closed");
  TearDownGpadl(1, 5);  // held by nobody
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 5"));
  CreateGpadl(1, 5);
  OpenWith(1, 0x5000, 0);
  EXPECT_EQ(StateOf(imc_), "opening");
}

TEST_F(GuestSignalsTest, SignalsOfAnotherChannelInUseAreRefusedUntilItsDeviceHasClosed) {
  ConnectWithTwoChannels();
  OpenWith(2, 0x5000, 50);
  const auto expect_refusals = [&] {
    log();
    OpenWith(1, 0x5000, 60);  // its connection
    OpenWith(1, 0x2002, 60);  // the connection it was offered with
    OpenWith(1, 0x6000, 50);  // its event flag
    EXPECT_THAT(log(), ElementsAre(kRefused1, kRefused1, kRefused1)) << StateOf(boot_);
  };
  expect_refusals();
  bus_.OpenDone(boot_, absl::OkStatus());
  expect_refusals();
  Close(2);
  expect_refusals();
  bus_.CloseDone(boot_);
  OpenWith(1, 0x2002, 50);
  EXPECT_EQ(StateOf(imc_), "opening");
}

TEST_F(GuestSignalsTest, ShortOpenIsDroppedWhereSignalsBelongToIt) {
  ConnectWithTwoChannels();
  for (size_t size = 148; size < 156; ++size) {
    std::vector<std::byte> open = OpenMessage(1, 5).bytes();
    open.resize(size);
    Post(open);
  }
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.status().messages_dropped, 8u);
  EXPECT_EQ(StateOf(imc_), "closed");
}

class ModifyConnectionTest : public BusTest {
 protected:
  void ModifyConnection(uint64_t parent_to_child, uint64_t child_to_parent) {
    Post(MessageBytes(25, 24).U64(8, parent_to_child).U64(16, child_to_parent));
  }
  std::pair<uint64_t, uint64_t> Pages() const {
    const BusStatus status = bus_.status();
    return {status.parent_to_child_monitor_page_gpa, status.child_to_parent_monitor_page_gpa};
  }
};

TEST_F(ModifyConnectionTest, PagesAreReplacedAndRemovedInPairsOnly) {
  Post(MessageBytes(14, 56).U32(8, 0x00060000).U32(20, 4).U64(24, 0x1000).U64(32, 0x2000));
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1 features=0x4"));
  EXPECT_EQ(Pages(), std::pair(uint64_t{0x1000}, uint64_t{0x2000}));
  ModifyConnection(0x3000, 0x4008);  // any address will do: no channel is monitored
  EXPECT_THAT(port_.sent().back().bytes,
              testing::ElementsAreArray(MessageBytes::FromHex("1a000000 00000000 00")));
  EXPECT_EQ(Pages(), std::pair(uint64_t{0x3000}, uint64_t{0x4008}));
  ModifyConnection(0x5000, 0);
  ModifyConnection(0, 0x5000);
  EXPECT_EQ(Pages(), std::pair(uint64_t{0x3000}, uint64_t{0x4008}));
  ModifyConnection(0, 0);
  EXPECT_EQ(Pages(), std::pair(uint64_t{0}, uint64_t{0}));
  EXPECT_THAT(log(), ElementsAre("modify connection response 0", "modify connection response 2",
                                 "modify connection response 2", "modify connection response 0"));
}

TEST_F(ModifyConnectionTest, PagesGoWithTheirConnection) {
  ContactWithFeatures(4);
  ModifyConnection(0x3000, 0x4000);
  Unload();
  EXPECT_EQ(Pages(), std::pair(uint64_t{0}, uint64_t{0}));
  ContactWithFeatures(4);
  EXPECT_EQ(Pages(), std::pair(uint64_t{0}, uint64_t{0}));
}

TEST_F(ModifyConnectionTest, WithoutTheFeatureItIsDropped) {
  ContactWithFeatures(0xFB);
  log();
  ModifyConnection(0x3000, 0x4000);
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(Pages(), std::pair(uint64_t{0}, uint64_t{0}));
}

using ClientIdTest = BusTest;

// Statement 13.
TEST_F(ClientIdTest, ClientIdIsShownWhileConnectedAndIgnoredWithoutItsFlag) {
  MessageBytes contact = MessageBytes(14, 56).U32(8, 0x00060000).Put(40, kImc);
  Post(contact);
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1 features=0x0"));
  EXPECT_EQ(bus_.status().client_id, "");
  Post(contact.U32(20, 8));
  EXPECT_THAT(log(), ElementsAre("version state=0 word=0x1 features=0x8"));
  EXPECT_EQ(bus_.status().client_id, kImc.ToString());
  Unload();
  EXPECT_EQ(bus_.status().client_id, "");
}

}  // namespace
}  // namespace vmbfs::hyperv
