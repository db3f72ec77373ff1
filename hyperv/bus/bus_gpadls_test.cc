// GPADLs over the bus: statements 28 to 37 of shared/specs/vmbus.md section 13.

#include "hyperv/bus/bus_test_fixture.h"
#include "hyperv/gpadl/gpadl_table.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class BusGpadlsTest : public BusTest {
 protected:
  void SetUp() override {
    Offer(kBoot);
    ConnectWithOneChannel();  // IMC is 1, boot is 2
  }

  // One GpadlHeader with the words as they are.
  void PostHeader(uint32_t gpadl_id, uint16_t range_count, const std::vector<uint64_t>& words) {
    MessageBytes message(8, 20 + 8 * words.size());
    message.U32(8, 1).U32(12, gpadl_id);
    message.U16(16, static_cast<uint16_t>(8 * words.size())).U16(18, range_count);
    for (size_t i = 0; i < words.size(); ++i) message.U64(20 + 8 * i, words[i]);
    Post(message);
  }
};

// Statement 30.
TEST_F(BusGpadlsTest, FirmwareRingIsCreatedFromItsExactBytes) {
  std::vector<std::byte> message = MessageBytes::FromHex(
      "08 00 00 00 00 00 00 00 01 00 00 00 01 00 00 00"
      "58 00 01 00 00 a0 00 00 00 00 00 00 30 12 00 00"
      "00 00 00 00 31 12 00 00 00 00 00 00 32 12 00 00 00 00 00 00"
      "33 12 00 00 00 00 00 00 34 12 00 00 00 00 00 00"
      "35 12 00 00 00 00 00 00 36 12 00 00 00 00 00 00"
      "37 12 00 00 00 00 00 00 38 12 00 00 00 00 00 00"
      "39 12 00 00 00 00 00 00");
  ASSERT_EQ(message.size(), 108u);
  message.resize(240);
  Post(message);
  EXPECT_THAT(port_.sent().back().bytes, testing::ElementsAreArray(MessageBytes::FromHex(
                                             "0a000000 00000000 01000000 01000000 00000000")));
}

// Statement 28.
// Statement 30.
TEST_F(BusGpadlsTest, EverySizeWorksExactAndPadded) {
  uint32_t gpadl_id = 0xE1E10;
  for (const size_t pages : {1, 26, 27, 54, 55, 1024, 8190}) {
    for (const bool padded : {false, true}) {
      const auto messages = GpadlMessages(1, ++gpadl_id, pages, padded);
      EXPECT_EQ(messages.size(), pages <= 26 ? 1u : 1 + (pages - 26 + 27) / 28) << pages;
      for (const auto& each : messages) {
        EXPECT_THAT(log(), IsEmpty());
        Post(each);
      }
      EXPECT_THAT(log(), ElementsAre(absl::StrCat("gpadl created 1/", gpadl_id, " ok")));
    }
  }
  EXPECT_EQ(bus_.status().gpadl_pages, 2u * (1 + 26 + 27 + 54 + 55 + 1024 + 8190));
}

// Statement 29.
TEST_F(BusGpadlsTest, RandomMessageNumbersWorkAndJunkBehindTheRangeIsIgnored) {
  auto messages = GpadlMessages(1, 5, 100, false);
  for (uint32_t i = 1; i < messages.size(); ++i) messages[i].U32(8, 0xDEADBEEF * i);
  for (const auto& each : messages) {
    std::vector<std::byte> message = each.bytes();
    message.resize(240, std::byte{0xFF});
    Post(message);
  }
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 ok"));
  Open(1);
  ASSERT_EQ(port_.opens().size(), 1u);
  EXPECT_EQ(port_.opens()[0].outgoing.size(), 95u);
  EXPECT_EQ(port_.opens()[0].outgoing.back(), 0x1230u + 99);
}

TEST_F(BusGpadlsTest, LinuxProbeFitsTheLimits) {
  // uio_hv_generic: 7,936 and 4,096 pages, then a ring of 34.
  CreateGpadl(1, 0xE1E10, 7936);
  CreateGpadl(1, 0xE1E11, 4096);
  CreateGpadl(1, 0xE1E12, 34);
  Open(1, 0xE1E12, 17);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/925200 ok", "gpadl created 1/925201 ok",
                                 "gpadl created 1/925202 ok", "port: open offer2"));
}

// Statement 31.
TEST_F(BusGpadlsTest, MalformedRangesFailAndTheIdIsUsableAfterwards) {
  PostHeader(5, 1, {0, 1});                           // no bytes
  PostHeader(5, 1, {4096ull << 32 | 1, 1, 1});        // offset of a page
  PostHeader(5, 1, {0xFFFFFFFF, 1});                  // overflow
  PostHeader(5, 1, {4095ull << 32 | 0xFFFFF001, 1});  // overflow with the offset
  PostHeader(5, 1, {0x2000, 1});                      // a page frame is missing
  PostHeader(5, 0, {0x1000, 1});                      // no range
  PostHeader(5, 0, {});                               // nothing at all
  PostHeader(5, 0xFFFF, {0x1000, 1});                 // more ranges than words
  EXPECT_THAT(log(), testing::AllOf(testing::SizeIs(8), Each("gpadl created 1/5 0x8000ffff")));
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
  CreateGpadl(1, 5);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 ok"));
}

// Statement 31.
TEST_F(BusGpadlsTest, UnknownChannelFailsWithTheIdsGiven) {
  for (const uint32_t channel : {0u, 3u, 2047u, 2048u, 0xFFFFFFFFu}) {
    CreateGpadl(channel, 9);
    EXPECT_THAT(log(), ElementsAre(absl::StrCat("gpadl created ", channel, "/9 0x8000ffff")));
  }
}

// Statement 31.
// Statement 32.
TEST_F(BusGpadlsTest, DuplicateFailsAndTheExistingOneStaysUsable) {
  CreateGpadl(1, 5, 10);
  CreateGpadl(1, 5, 20);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 ok", "gpadl created 1/5 0x8000ffff"));
  Open(1);
  ASSERT_EQ(port_.opens().size(), 1u);
  EXPECT_EQ(port_.opens()[0].incoming.size() + port_.opens()[0].outgoing.size(), 10u);
}

// Statement 33.
TEST_F(BusGpadlsTest, IncompleteIdIsUniqueOverChannelsAndACompleteOneIsNot) {
  const auto first = GpadlMessages(1, 5, 30, false);
  Post(first[0]);
  Post(GpadlMessages(2, 5, 30, false)[0]);
  EXPECT_THAT(log(), ElementsAre("gpadl created 2/5 0x8000ffff"));
  Post(first[1]);
  CreateGpadl(2, 5, 30);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 ok", "gpadl created 2/5 ok"));
}

// Statement 34.
TEST_F(BusGpadlsTest, BodyOfAnUnknownOrCompleteIdIsDropped) {
  CreateGpadl(1, 5);
  log();
  const uint64_t dropped = bus_.status().messages_dropped;
  Post(MessageBytes(9, 240).U32(12, 5));
  Post(MessageBytes(9, 240).U32(12, 6));
  EXPECT_THAT(log(), IsEmpty());
  EXPECT_EQ(bus_.status().messages_dropped, dropped + 2);
}

// Statement 35.
TEST_F(BusGpadlsTest, TeardownOfAClosedRingIsAnsweredOnce) {
  CreateGpadl(1, 5);
  log();
  TearDownGpadl(2, 5);  // another channel's
  EXPECT_THAT(log(), IsEmpty());
  TearDownGpadl(1, 5);
  TearDownGpadl(1, 5);
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 5"));
}

// Statement 35.
TEST_F(BusGpadlsTest, TeardownOfARingInUseIsAnsweredWhenTheCloseIsDone) {
  CreateGpadl(1, 5);
  Open(1);
  TearDownGpadl(1, 5);  // while it opens
  bus_.OpenDone(imc_, absl::OkStatus());
  TearDownGpadl(1, 5);  // a second time
  Close(1);
  log();
  EXPECT_EQ(bus_.RingPageFrames(imc_).size(), 10u);
  bus_.CloseDone(imc_);
  EXPECT_THAT(log(), ElementsAre("gpadl torndown 5"));
}

TEST_F(BusGpadlsTest, TeardownWhileOpeningIsAnsweredAfterARefusedOpen) {
  CreateGpadl(1, 5);
  Open(1);
  TearDownGpadl(1, 5);
  log();
  bus_.OpenDone(imc_, absl::InternalError("no"));
  EXPECT_THAT(log(), ElementsAre("open result 1 open_id=77 0x8000ffff", "gpadl torndown 5"));
}

// Statement 36.
TEST_F(BusGpadlsTest, SeveralRangesAreAcceptedButAreNoRing) {
  std::vector<uint64_t> words;
  for (uint64_t range = 0; range < 2; ++range) {
    words.push_back(0x5000);
    for (uint64_t i = 0; i < 5; ++i) words.push_back(100 * range + i);
  }
  PostHeader(5, 2, words);
  Open(1);
  EXPECT_THAT(log(), ElementsAre("gpadl created 1/5 ok", "open result 1 open_id=77 0x8000ffff"));
}

// Statement 37.
TEST_F(BusGpadlsTest, CreatesWithoutTeardownHitTheLimitWithAFailure) {
  MessageBytes header = GpadlMessages(1, 0, 1, false).front();
  for (uint32_t i = 0; i < 100'000; ++i) {
    Post(header.U32(12, i));
    const uint32_t expected = i < GpadlTable::kGpadlsMax ? 0 : 0x8000FFFF;
    ASSERT_EQ(NumberAt(port_.sent().back().bytes, 16, 4), expected) << i;
  }
  EXPECT_EQ(log().size(), 100'000u);
  EXPECT_EQ(bus_.status().gpadl_count, GpadlTable::kGpadlsMax);
  Contact(0x00060000);
  EXPECT_EQ(bus_.status().gpadl_count, 0u);
}

TEST_F(BusGpadlsTest, IncompleteGpadlsAndPageFramesAreBounded) {
  for (uint32_t i = 0; i < 100; ++i) Post(GpadlMessages(1, i, 8190, true)[0]);
  // Eight promises of 8,190 pages are within 65,536; the rest fail at once.
  const auto answers = log();
  EXPECT_EQ(answers.size(), 92u);
  EXPECT_THAT(answers, Each(testing::EndsWith("0x8000ffff")));
  EXPECT_LE(bus_.status().gpadl_pages, GpadlTable::kPageFramesMax);
}

}  // namespace
}  // namespace vmbfs::hyperv
