// Open, close and modify: statements 38 to 44 of shared/specs/vmbus.md section
// 13, and the table of requests and states of section 3.3.

#include <map>

#include "hyperv/bus/bus_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

class BusChannelsTest : public BusTest {};

TEST_F(BusChannelsTest, FirmwareOpenIsAnsweredWithTheExactBytes) {
  ConnectWithOneChannel(0x00060000);
  CreateGpadl(1, 1);
  std::vector<std::byte> open =
      MessageBytes::FromHex("05000000 00000000 01000000 00000000 01000000 00000000 05000000");
  open.resize(156);
  Post(open);
  ASSERT_EQ(port_.opens().size(), 1u);
  const auto& request = port_.opens()[0];
  EXPECT_EQ(request.channel_id, 1u);
  EXPECT_EQ(request.connection_id, 0x2001u);
  EXPECT_EQ(request.event_flag, 1);
  EXPECT_EQ(request.target_vp, 0u);
  EXPECT_THAT(request.incoming, ElementsAre(0x1230, 0x1231, 0x1232, 0x1233, 0x1234));
  EXPECT_THAT(request.outgoing, ElementsAre(0x1235, 0x1236, 0x1237, 0x1238, 0x1239));
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_THAT(
      port_.sent().back().bytes,
      ElementsAreArray(MessageBytes::FromHex("06000000 00000000 01000000 00000000 00000000")));
}

// Statement 38.
TEST_F(BusChannelsTest, LongOpenIsServedAndItsTailIgnored) {
  for (const uint32_t version : {0x00030000u, 0x00060000u}) {
    ConnectWithOneChannel(version);
    CreateGpadl(1, 5);
    std::vector<std::byte> open = OpenMessage(1, 5).bytes();
    open.resize(156, std::byte{0xFF});
    Post(open);
    EXPECT_EQ(port_.opens().back().connection_id, 0x2001u);
    EXPECT_EQ(port_.opens().back().event_flag, 1);
    bus_.Reset();
    bus_.CloseDone(imc_);
    bus_.Revoke(imc_);
  }
  EXPECT_EQ(port_.opens().size(), 2u);
}

// Statement 40.
TEST_F(BusChannelsTest, BadRingsAreRefusedAndTheChannelCanBeOpenedAfterwards) {
  ConnectWithOneChannel();
  CreateGpadl(1, 5, 10);
  CreateGpadl(1, 6, 3);
  Post(MessageBytes(8, 108).U32(8, 1).U32(12, 7).U16(16, 88).U16(18, 1).U32(20, 0x9FFF));
  Post(MessageBytes(8, 108).U32(8, 1).U32(12, 8).U16(16, 88).U16(18, 1).U32(20, 0x9000).U32(24, 8));
  Post(GpadlMessages(1, 9, 30, false)[0]);  // incomplete
  log();
  for (const uint32_t offset : {0u, 1u, 9u, 10u, 11u, 0xFFFFFFFFu}) Open(1, 5, offset);
  Open(1, 6, 1);  // no room for two pages on each side
  Open(1, 6, 2);
  Open(1, 7, 5);  // not whole pages
  Open(1, 8, 5);  // not from the first page's beginning
  Open(1, 9, 5);
  Open(1, 10, 5);  // no such GPADL
  EXPECT_THAT(log(), testing::AllOf(testing::SizeIs(12),
                                    testing::Each("open result 1 open_id=77 0x8000ffff")));
  EXPECT_EQ(StateOf(imc_), "closed");
  TearDownGpadl(1, 6);  // the refused ones are held by nobody
  Open(1, 5, 2);
  bus_.OpenDone(imc_, absl::OkStatus());
  Close(1);
  bus_.CloseDone(imc_);
  Open(1, 5, 8);
  EXPECT_THAT(log(),
              ElementsAre("gpadl torndown 6", "port: open offer1", "open result 1 open_id=77 ok",
                          "port: close offer1", "port: open offer1"));
}

// Statement 40.
TEST_F(BusChannelsTest, OpenThatTheDeviceRefusesLeavesTheChannelClosedAndOpenable) {
  ConnectWithOneChannel();
  CreateGpadl(1, 5);
  Open(1);
  log();
  bus_.OpenDone(imc_, absl::UnavailableError("corrupt indices"));
  EXPECT_THAT(log(), ElementsAre("open result 1 open_id=77 0x8000ffff"));
  EXPECT_EQ(StateOf(imc_), "closed");
  EXPECT_TRUE(bus_.RingPageFrames(imc_).empty());
  Open(1);
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("port: open offer1", "open result 1 open_id=77 ok"));
}

// Statement 42.
TEST_F(BusChannelsTest, CloseHasNoAnswerAndAnImmediateOpenFollowsIt) {
  ConnectAndOpen();
  Close(1);
  EXPECT_THAT(log(), ElementsAre("port: close offer1"));
  Open(1);
  EXPECT_EQ(StateOf(imc_), "closing-reopen");
  EXPECT_THAT(log(), IsEmpty());
  bus_.CloseDone(imc_);
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("port: open offer1", "open result 1 open_id=77 ok"));
}

TEST_F(BusChannelsTest, ReopenOnARingThatIsTornDownMeanwhileFails) {
  ConnectAndOpen();
  Close(1);
  Open(1);
  TearDownGpadl(1, 5);
  log();
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 5", "open result 1 open_id=77 0x8000ffff"));
  EXPECT_EQ(StateOf(imc_), "closed");
}

TEST_F(BusChannelsTest, RingPageFramesAreThereWhileTheRingIsInUse) {
  ConnectWithOneChannel();
  CreateGpadl(1, 5);
  EXPECT_TRUE(bus_.RingPageFrames(imc_).empty());
  Open(1);
  EXPECT_EQ(bus_.RingPageFrames(imc_).size(), 10u);
  bus_.OpenDone(imc_, absl::OkStatus());
  EXPECT_EQ(bus_.RingPageFrames(imc_).front(), 0x1230u);
  Unload();
  EXPECT_EQ(bus_.RingPageFrames(imc_).size(), 10u);
  bus_.CloseDone(imc_);
  EXPECT_TRUE(bus_.RingPageFrames(imc_).empty());
  EXPECT_TRUE(bus_.RingPageFrames(OfferId{99}).empty());
}

TEST_F(BusChannelsTest, AnswersNobodyWaitsForAreIgnored) {
  ConnectWithOneChannel();
  for (const OfferId offer : {imc_, OfferId{0}, OfferId{99}}) {
    bus_.OpenDone(offer, absl::OkStatus());
    bus_.CloseDone(offer);
    bus_.ModifyDone(offer, absl::OkStatus());
  }
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(StateOf(imc_), "closed");
}

// Statement 52.
TEST_F(BusChannelsTest, ReservedOpenIsRefusedAtThePlaceItNames) {
  ConnectWithOneChannel();
  const auto open_reserved = [&](uint32_t channel, uint32_t sint) {
    Post(MessageBytes(18, 28).U32(8, channel).U32(12, 3).U32(16, sint).U32(20, 5).U32(24, 5));
  };
  open_reserved(1, 5);
  EXPECT_THAT(log(), ElementsAre("open result 1 open_id=0 0x8000ffff @vp3 @sint5"));
  open_reserved(1, 16);  // no such SINT
  open_reserved(2, 5);   // no such channel
  Post(MessageBytes(19, 20).U32(8, 1).U32(12, 3).U32(16, 5));
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(StateOf(imc_), "closed");
}

// Statement 44.
TEST_F(BusChannelsTest, ModifyMovesTheProcessorAndIsAnsweredFrom53On) {
  ConnectAndOpen(0x00050003);
  Modify(1, 3);
  EXPECT_THAT(log(), ElementsAre("port: modify offer1 to vp3"));
  EXPECT_EQ(bus_.channels()[0].target_vp, 0u);
  Modify(1, 4);  // one at a time: this one is ignored
  EXPECT_THAT(log(), IsEmpty());
  bus_.ModifyDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("modify response 1 ok"));
  EXPECT_EQ(bus_.channels()[0].target_vp, 3u);
}

// Statement 44.
TEST_F(BusChannelsTest, ModifyBelow53IsSilentAndTheNewestProcessorFollows) {
  ConnectAndOpen(0x00040001);
  Modify(1, 3);
  Modify(1, 4);
  Modify(1, 5);
  bus_.ModifyDone(imc_, absl::OkStatus());
  bus_.ModifyDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), ElementsAre("port: modify offer1 to vp3", "port: modify offer1 to vp5"));
  EXPECT_EQ(bus_.channels()[0].target_vp, 5u);
  Modify(2, 3);
  EXPECT_THAT(log(), IsEmpty());
}

// Statement 44.
TEST_F(BusChannelsTest, ModifyThatCannotBeFails) {
  ConnectAndOpen();
  const OfferId boot = Offer(kBoot);
  log();
  Modify(1, kNoVp);
  Modify(2, 3);  // boot's, which is closed
  Modify(3, 3);  // nobody's
  EXPECT_THAT(log(), ElementsAre("modify response 1 0x8000ffff", "modify response 2 0x8000ffff",
                                 "modify response 3 0x8000ffff"));
  EXPECT_EQ(StateOf(boot), "closed");
  Modify(1, 3);
  log();
  bus_.ModifyDone(imc_, absl::InternalError("no such processor"));
  EXPECT_THAT(log(), ElementsAre("modify response 1 0x8000ffff"));
  EXPECT_EQ(bus_.channels()[0].target_vp, 0u);
}

// Statement 43.
TEST_F(BusChannelsTest, ModifyOfAChannelWithoutInterruptsFails) {
  ConnectWithOneChannel();
  CreateGpadl(1, 5);
  Post(OpenMessage(1, 5).U32(20, kNoVp));
  EXPECT_EQ(port_.opens()[0].target_vp, kNoVp);
  bus_.OpenDone(imc_, absl::OkStatus());
  log();
  Modify(1, 3);
  EXPECT_THAT(log(), ElementsAre("modify response 1 0x8000ffff"));
}

TEST_F(BusChannelsTest, CloseWhileModifyRunsForgetsTheModify) {
  ConnectAndOpen();
  Modify(1, 3);
  Close(1);
  log();
  bus_.ModifyDone(imc_, absl::OkStatus());
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), IsEmpty());
}

TEST_F(BusChannelsTest, NextProcessorOfAnEarlierOpenIsForgotten) {
  ConnectAndOpen(0x00040001);
  Modify(1, 3);
  Modify(1, 4);
  Close(1);
  bus_.CloseDone(imc_);
  Open(1);
  bus_.OpenDone(imc_, absl::OkStatus());
  Modify(1, 5);
  log();
  bus_.ModifyDone(imc_, absl::OkStatus());
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.channels()[0].target_vp, 5u);
}

// Statement 41, and the rest of section 3.3: what each request gets in each
// state. "drop" is no answer and no change; other entries are what the bus says
// and the state it ends in.
struct Cell {
  std::vector<std::string> log;
  std::string state;  // empty: unchanged
};
using Row = std::map<std::string, Cell>;  // by state; absent: drop

class BusTableTest : public BusTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void Reach(const std::string& state) {
    if (state == "unknown" || state == "closed" || state == "opening" || state == "revoked") {
      ConnectWithOneChannel();
      CreateGpadl(1, 5);
      CreateGpadl(1, 6);
      if (state == "opening") Open(1);
      if (state == "revoked") bus_.Revoke(imc_);
      if (state == "unknown") ReleaseId(1);
    } else {
      ConnectAndOpen();
      CreateGpadl(1, 6);
      if (state == "revoking") bus_.Revoke(imc_);
      if (state.starts_with("closing")) Close(1);
      if (state == "closing-reopen") Open(1);
      if (state == "closing-release") ReleaseId(1);
    }
    log();
  }

  void CheckRow(std::span<const std::byte> request, const Row& row) {
    const std::string state = GetParam();
    Reach(state);
    const std::string before = StateOf(imc_);
    const uint64_t dropped = bus_.status().messages_dropped;
    Post(request);
    const auto cell = row.find(state);
    if (cell == row.end()) {
      EXPECT_THAT(log(), IsEmpty());
      EXPECT_EQ(StateOf(imc_), before);
      EXPECT_EQ(bus_.status().messages_dropped, dropped + 1);
      return;
    }
    EXPECT_THAT(log(), ElementsAreArray(cell->second.log));
    EXPECT_EQ(StateOf(imc_), cell->second.state.empty() ? before : cell->second.state);
    EXPECT_EQ(bus_.status().messages_dropped, dropped);
  }
};

TEST_P(BusTableTest, OpenChannel) {
  CheckRow(MessageBytes(5, 148).U32(8, 1).U32(16, 5).U32(24, 5).bytes(),
           {{"closed", {{"port: open offer1"}, "opening"}}, {"closing", {{}, "closing-reopen"}}});
}

TEST_P(BusTableTest, CloseChannel) {
  CheckRow(MessageBytes(7, 12).U32(8, 1).bytes(), {{"open", {{"port: close offer1"}, "closing"}}});
}

TEST_P(BusTableTest, OpenReservedChannel) {
  CheckRow(MessageBytes(18, 28).U32(8, 1).U32(16, 2).bytes(),
           {{"closed", {{"open result 1 open_id=0 0x8000ffff"}, ""}}});
}

TEST_P(BusTableTest, CloseReservedChannel) {
  CheckRow(MessageBytes(19, 20).U32(8, 1).U32(16, 2).bytes(), {});
}

TEST_P(BusTableTest, RelIdReleased) {
  CheckRow(MessageBytes(13, 12).U32(8, 1).bytes(),
           {{"closed", {{}, "released"}},
            {"closing", {{}, "closing-release"}},
            {"revoking", {{}, "closing-release"}},
            {"revoked", {{"port: released offer1"}, "gone"}}});
}

TEST_P(BusTableTest, ModifyChannel) {
  Row row;
  for (const char* state : {"unknown", "closed", "opening", "closing", "closing-reopen", "revoking",
                            "revoked", "closing-release"}) {
    row[state] = {{"modify response 1 0x8000ffff"}, ""};
  }
  row["open"] = {{"port: modify offer1 to vp3"}, ""};
  CheckRow(MessageBytes(22, 16).U32(8, 1).U32(12, 3).bytes(), row);
}

TEST_P(BusTableTest, GpadlHeader) {
  Row row;
  for (const char* state :
       {"closed", "opening", "open", "closing", "closing-reopen", "revoking", "revoked"}) {
    row[state] = {{"gpadl created 1/9 ok"}, ""};
  }
  for (const char* state : {"unknown", "closing-release"}) {
    row[state] = {{"gpadl created 1/9 0x8000ffff"}, ""};
  }
  MessageBytes header = MessageBytes(8, 36).U32(8, 1).U32(12, 9);
  CheckRow(header.U16(16, 16).U16(18, 1).U32(20, 4096).bytes(), row);
}

TEST_P(BusTableTest, GpadlTeardown) {
  Row row;
  for (const char* state :
       {"closed", "opening", "open", "closing", "closing-reopen", "revoking", "revoked"}) {
    row[state] = {{"gpadl torndown 6"}, ""};
  }
  CheckRow(MessageBytes(11, 16).U32(8, 1).U32(12, 6).bytes(), row);
}

INSTANTIATE_TEST_SUITE_P(EachState, BusTableTest,
                         ::testing::Values("unknown", "closed", "opening", "open", "closing",
                                           "closing-reopen", "revoking", "revoked",
                                           "closing-release"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace vmbfs::hyperv
