// Posts, messages and interrupt sources of the SynIC level, frame by frame.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hyperv/link/fake_device.h"
#include "hyperv/link/link_session_fixture.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

using SynicLevelTest = LinkSessionTest;

// The first POST of a guest: InitiateContact, 4.0.
std::vector<std::byte> FirstPost() {
  std::vector<std::byte> post(264);
  post[0] = post[12] = post[16] = std::byte{1};
  post[20] = std::byte{40};
  post[24] = std::byte{14};
  post[34] = std::byte{4};
  return FrameBytes(0x564C0021, 0, 0, 3, post);
}

TEST_F(SynicLevelTest, SeventeenthPostIsAViolation) {
  const UniqueFd socket = Greeted();  // not started: posts wait
  std::vector<std::byte> post(264);
  for (int i = 1; i <= 17; ++i) {
    post[0] = static_cast<std::byte>(i);
    ASSERT_TRUE(SendBytes(socket, FrameBytes(0x564C0021, 0, 0, 1, post)));
  }
  ExpectEnd(socket, "more than 16 posts");
}

TEST_F(SynicLevelTest, PostSequenceMustRise) {
  const UniqueFd socket = Greeted();
  std::vector<std::byte> post(264);
  post[0] = std::byte{5};
  SendBytes(socket, FrameBytes(0x564C0021, 0, 0, 1, post));
  SendBytes(socket, FrameBytes(0x564C0021, 0, 0, 2, post));
  ExpectEnd(socket, "POST 5 after POST 5");
}

TEST_F(SynicLevelTest, PostsToNobodyAreAcknowledgedAndDropped) {
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  const std::vector<std::byte> contact = VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0});
  vmm.Post(contact, 5);                                                   // no such connection
  EXPECT_TRUE(vmm.WaitForAck(vmm.Post(std::vector<std::byte>(250), 1)));  // longer than 240
  EXPECT_FALSE(vmm.SlotIsFull());
  EXPECT_EQ(harness_.status().bus->state, "disconnected");
  vmm.Post(contact);
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 15u);
  EXPECT_EQ(harness_.status().bus->state, "connected");
}

TEST_F(SynicLevelTest, PostsWaitWhileTheGuestLeavesMessagesUntaken) {
  const auto device = std::make_shared<FakeDevice>();
  ASSERT_TRUE(harness_.Do([&](LinkServer& server) { return server.Add(device); }).ok());
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  vmm.Post(VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 15u);
  const uint64_t offers = vmm.Post(VmbusMessage(3, {}));  // an offer and its end: one waits
  const uint64_t unload = vmm.Post(VmbusMessage(16, {}));
  ASSERT_TRUE(vmm.WaitForAck(offers));
  LinkSignalWire nobody{};
  ASSERT_TRUE(vmm.Ask(LinkType::kSignal, WireBytes(nobody)));  // the post was seen before this
  EXPECT_EQ(vmm.acknowledged(), offers);
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 1u);
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 4u);
  EXPECT_TRUE(vmm.WaitForAck(unload));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 17u);
}

TEST_F(SynicLevelTest, EomFrameServesWhereNoAckDescriptorDoes) {
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  // A message of somebody else's holds the slot; emptied without an ack.
  std::byte* const slot = vmm.page(1) + 2 * 256;
  slot[0] = std::byte{9};
  vmm.Post(VmbusMessage(14, {0x40000, 0, 0, 0, 0, 0, 0, 0}));
  ASSERT_TRUE(vmm.WaitForAck(1));
  LinkSintWire eom{};
  eom.sint = 2;
  ASSERT_TRUE(vmm.Ask(LinkType::kEom, WireBytes(eom)));
  EXPECT_EQ(slot[0], std::byte{9});
  slot[0] = std::byte{0};
  ASSERT_TRUE(vmm.Ask(LinkType::kEom, WireBytes(eom)));
  EXPECT_EQ(WordAt(vmm.TakeMessage(), 0), 15u);
}

TEST_F(SynicLevelTest, WrongDescriptorForAnInterruptCostsOnlyItsMessages) {
  const UniqueFd socket = Greeted();
  const UniqueFd memory = TestMemory(64 * 4096, SealShrink());
  SendBytes(socket, FrameBytes(kStart, 0, 0, 1, {}));
  std::vector<std::byte> post(264);
  post[0] = post[12] = post[16] = std::byte{1};
  post[20] = std::byte{40};
  post[24] = std::byte{14};
  post[34] = std::byte{4};  // InitiateContact, 4.0
  SendBytes(socket, FrameBytes(0x564C0021, 0, 0, 2, post));
  std::optional<TestFrame> frame;
  do {
    frame = ReceiveFrame(socket);
    ASSERT_TRUE(frame.has_value());
  } while (frame->type != LinkType::kSintGet);
  SendBytes(socket, FrameBytes(0x564C0030, 1, 1, frame->seq, {}), {memory.get()});
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) {
    return status.last_error.find("not an eventfd") != std::string::npos;
  }));
  EXPECT_TRUE(harness_.status().connected);
}

TEST_F(SynicLevelTest, WrongDescriptorForAnEventFailsTheOpen) {
  ASSERT_TRUE(
      harness_.Do([&](LinkServer& server) { return server.Add(std::make_shared<FakeDevice>()); })
          .ok());
  TestVmm vmm(harness_.path(), 1, kLinkDeliveryMediated);
  ASSERT_TRUE(vmm.SetUp());
  ASSERT_TRUE(vmm.ConnectBus());
  ASSERT_TRUE(vmm.CreateRingGpadl());
  vmm.RefuseEvents();
  EXPECT_EQ(vmm.OpenChannel(), 0x8000FFFFu);
  EXPECT_THAT(harness_.status().last_error, HasSubstr("not an eventfd"));
}

// The VMM takes messages before that answer for the old guest's.
TEST_F(SynicLevelTest, PostBehindAResetWaitsForTheAnswerToIt) {
  const UniqueFd socket = ConnectTo(harness_.path());
  SendBytes(socket, FrameBytes(kHello, 0, 0, 1, Hello(1, 1, 2)));
  ASSERT_TRUE(ReceiveFrame(socket).has_value());
  SendBytes(socket, FrameBytes(kStart, 0, 0, 2, {}));
  std::vector<std::byte> both = FrameBytes(0x564C0007, 0, 0, 4, std::vector<std::byte>(8));
  const std::vector<std::byte> post = FirstPost();
  both.insert(both.end(), post.begin(), post.end());
  SendBytes(socket, both);  // at once: both are there in one turn of the server's
  std::optional<TestFrame> frame = ReceiveFrame(socket);
  ASSERT_TRUE(frame.has_value());
  EXPECT_TRUE(frame->type == LinkType::kReset && frame->reply());
  frame = ReceiveFrame(socket);
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(frame->type, LinkType::kMsgSend);
}

TEST_F(SynicLevelTest, UnknownResultOfMsgSendEndsTheConnection) {
  const UniqueFd socket = ConnectTo(harness_.path());
  SendBytes(socket, FrameBytes(kHello, 0, 0, 1, Hello(1, 1, 2)));
  ASSERT_TRUE(ReceiveFrame(socket).has_value());
  SendBytes(socket, FrameBytes(kStart, 0, 0, 2, {}));
  SendBytes(socket, FirstPost());
  std::optional<TestFrame> frame;
  do {
    frame = ReceiveFrame(socket);
    ASSERT_TRUE(frame.has_value());
  } while (frame->type != LinkType::kMsgSend);
  ASSERT_EQ(frame->payload.size(), 264u);
  EXPECT_EQ(WordAt(frame->payload, 8), 0u);    // VP
  EXPECT_EQ(WordAt(frame->payload, 12), 2u);   // SINT
  EXPECT_EQ(WordAt(frame->payload, 16), 1u);   // type
  EXPECT_EQ(WordAt(frame->payload, 24), 15u);  // VersionResponse
  std::vector<std::byte> result(8);
  result[0] = std::byte{3};
  SendBytes(socket, FrameBytes(0x564C0034, 1, 0, frame->seq, result));
  do {
    frame = ReceiveFrame(socket);
    ASSERT_TRUE(frame.has_value());
  } while (!frame->error());
  EXPECT_THAT(frame->error_text(), HasSubstr("result 3"));
}

}  // namespace
}  // namespace vmbfs::hyperv
