// What both levels of the link have: HELLO, frames and descriptors, memory.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hyperv/link/link_session_fixture.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

TEST_F(LinkSessionTest, HelloIsAnsweredWithTheLowerMinorAndNoUnknownFeature) {
  const UniqueFd socket = ConnectTo(harness_.path());
  SendBytes(socket, FrameBytes(kHello, 0, 0, 99, HelloPayload(1)));  // minor 7, all features
  const auto reply = ReceiveFrame(socket);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->seq, 99u);
  EXPECT_EQ(reply->flags, 1);
  const std::vector<std::byte> expected = [] {
    std::vector<std::byte> bytes(24);
    bytes[0] = bytes[2] = bytes[4] = bytes[16] = std::byte{1};  // 1.1, level, DIRECT
    return bytes;
  }();
  EXPECT_EQ(reply->payload, expected);
}

TEST_F(LinkSessionTest, HelloThatAsksForWhatIsNotThereEndsTheConnection) {
  const auto expect_refusal = [&](const std::vector<std::byte>& hello, const std::string& text) {
    const UniqueFd socket = ConnectTo(harness_.path());
    SendBytes(socket, FrameBytes(kHello, 0, 0, 1, hello));
    ExpectEnd(socket, text, 2);
  };
  expect_refusal(Hello(1, 0, 3), "level 0 is not supported");
  expect_refusal(Hello(1, 3, 3), "level 3 is not supported");
  expect_refusal(Hello(1, 1, 0), "none of the delivery modes 0x0");
  expect_refusal(Hello(1, 1, 4), "none of the delivery modes 0x4");
}

TEST_F(LinkSessionTest, VmmOfVersion10SeesWhatVersion10Did) {
  const auto answer = [&](const std::vector<std::byte>& hello) {
    const UniqueFd socket = ConnectTo(harness_.path());
    SendBytes(socket, FrameBytes(kHello, 0, 0, 1, hello));
    return ReceiveFrame(socket);
  };
  const auto direct = answer(Hello(0, 1, 3));
  ASSERT_TRUE(direct.has_value());
  std::vector<std::byte> expected(24);
  expected[0] = expected[4] = expected[16] = std::byte{1};  // 1.0, level, DIRECT
  EXPECT_EQ(direct->payload, expected);
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
  const auto mediated = answer(Hello(0, 1, 2));
  ASSERT_TRUE(mediated && mediated->error());
  EXPECT_EQ(mediated->error_code(), 2u);
  EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
  const auto channel_level = answer(Hello(0, 2, 3));
  ASSERT_TRUE(channel_level && channel_level->error());
  EXPECT_EQ(channel_level->error_code(), 2u);
}

TEST_F(LinkSessionTest, DirectIsPreferredAndMediatedTakenWhereItIsAllThereIs) {
  const auto mode_of = [&](int level, int modes) {
    const UniqueFd socket = ConnectTo(harness_.path());
    SendBytes(socket, FrameBytes(kHello, 0, 0, 1, Hello(1, level, modes)));
    const auto reply = ReceiveFrame(socket);
    EXPECT_TRUE(reply && !reply->error());
    const LinkStatus status = harness_.status();
    EXPECT_EQ(status.level, level == 1 ? "synic" : "channel");
    EXPECT_EQ(status.bus.has_value(), level == 1);
    return std::pair(WordAt(reply->payload, 16), status.delivery);
  };
  const auto gone = [&] {
    return harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; });
  };
  EXPECT_EQ(mode_of(1, 3), std::pair(1u, std::string("direct")));
  ASSERT_TRUE(gone());
  EXPECT_EQ(mode_of(1, 2), std::pair(2u, std::string("mediated")));
  ASSERT_TRUE(gone());
  EXPECT_EQ(mode_of(2, 0), std::pair(0u, std::string()));
}

TEST_F(LinkSessionTest, ViolationsEndTheConnectionWithTheReason) {
  struct Case {
    std::vector<std::byte> bytes;
    std::string reason;
  };
  const std::vector<std::byte> sint_of_vp_2(8, std::byte{0});
  std::vector<std::byte> post_of_vp_2(264);
  post_of_vp_2[8] = std::byte{2};
  std::vector<std::byte> synic_of_vp_2(40);
  synic_of_vp_2[0] = std::byte{2};
  std::vector<std::byte> oversized = FrameBytes(kStart, 0, 0, 1, {});
  oversized[9] = std::byte{0x10};  // length 4,096
  const std::vector<Case> cases = {
      {FrameBytes(0x00001234, 0, 0, 1, {}), "does not begin with 0x564c"},
      {FrameBytes(0x564C0099, 0, 0, 1, {}), "unknown"},
      {FrameBytes(kStart, 0x80, 0, 1, {}), "flags"},
      {oversized, "at most 4072"},
      {FrameBytes(kHello, 0, 0, 2, HelloPayload(1)), "second HELLO"},
      {FrameBytes(kStart, 0, 0, 1, sint_of_vp_2), "none belongs"},
      {FrameBytes(0x564C0020, 0, 0, 1, synic_of_vp_2), "VP 2"},
      {FrameBytes(0x564C0021, 0, 0, 1, post_of_vp_2), "VP 2"},
      {FrameBytes(0x564C0003, 0, 0, 1, {}), "MEM_DEL payload is 0 bytes"},
      {FrameBytes(0x564C0030, 1, 1, 1, {}), "1 descriptors; 0 came"},
      {FrameBytes(0x564C0032, 1, 0, 77, {}), "answers no request"},
      {FrameBytes(0x564C0030, 0, 0, 1, sint_of_vp_2), "not for a VMM"},
      {FrameBytes(kMemAdd, 0, 1, 1, Region(1, 0, 4096)), "1 descriptors; 0 came"},
  };
  for (const Case& violation : cases) {
    SCOPED_TRACE(violation.reason);
    const UniqueFd socket = Greeted();
    ASSERT_TRUE(SendBytes(socket, violation.bytes));
    ExpectEnd(socket, violation.reason);
  }
  EXPECT_EQ(harness_.status().frames_refused, cases.size());
}

TEST_F(LinkSessionTest, FrameBeforeHelloEndsTheConnection) {
  const UniqueFd socket = ConnectTo(harness_.path());
  SendBytes(socket, FrameBytes(kStart, 0, 0, 1, {}));
  ExpectEnd(socket, "START before HELLO");
}

TEST_F(LinkSessionTest, DescriptorsElsewhereThanAtTheFirstByteEndTheConnection) {
  const UniqueFd memory = TestMemory(4096, SealShrink());
  const std::vector<std::byte> frame = FrameBytes(kMemAdd, 0, 1, 1, Region(1, 0, 4096));
  const UniqueFd socket = Greeted();
  ASSERT_TRUE(SendBytes(socket, std::span(frame).first(30)));  // without: said to have one
  ExpectEnd(socket, "1 descriptors; 0 came");
  const UniqueFd late = Greeted();
  const std::vector<std::byte> start = FrameBytes(kStart, 0, 0, 1, {});
  ASSERT_TRUE(SendBytes(late, std::span(start).first(10)));
  ASSERT_TRUE(SendBytes(late, std::span(start).subspan(10), {memory.get()}));
  ExpectEnd(late, "elsewhere");
}

TEST_F(LinkSessionTest, TooManyOrUnannouncedDescriptorsEndTheConnection) {
  const UniqueFd memory = TestMemory(4096, SealShrink());
  const int fd = memory.get();
  const UniqueFd five = Greeted();
  SendBytes(five, FrameBytes(kMemAdd, 0, 1, 1, Region(1, 0, 4096)), {fd, fd, fd, fd, fd});
  ExpectEnd(five, "cut short");
  const UniqueFd two = Greeted();
  SendBytes(two, FrameBytes(kMemAdd, 0, 1, 1, Region(1, 0, 4096)), {fd, fd});
  ExpectEnd(two, "announces 1 descriptors; 2 came");
}

TEST_F(LinkSessionTest, FrameInSingleBytesIsUnderstood) {
  const UniqueFd memory = TestMemory(4096, SealShrink());
  const UniqueFd socket = Greeted();
  const std::vector<std::byte> frame = FrameBytes(kMemAdd, 2, 1, 5, Region(1, 0, 4096));
  for (size_t i = 0; i < frame.size(); ++i) {
    const std::vector<int> descriptors =
        i == 0 ? std::vector<int>{memory.get()} : std::vector<int>{};
    ASSERT_TRUE(SendBytes(socket, std::span(frame).subspan(i, 1), descriptors));
  }
  const auto reply = ReceiveFrame(socket);
  ASSERT_TRUE(reply.has_value());
  EXPECT_FALSE(reply->error()) << reply->error_text();
  EXPECT_EQ(reply->seq, 5u);
}

TEST_F(LinkSessionTest, FramesInOneSendAreUnderstoodOneByOne) {
  const UniqueFd socket = Greeted();
  std::vector<std::byte> bytes;
  for (uint64_t seq = 10; seq < 60; ++seq) {
    const std::vector<std::byte> pause = FrameBytes(0x564C0005 + (seq & 1), 0, 0, seq, {});
    bytes.insert(bytes.end(), pause.begin(), pause.end());
  }
  ASSERT_TRUE(SendBytes(socket, bytes));
  for (uint64_t seq = 10; seq < 60; ++seq) {
    const auto reply = ReceiveFrame(socket);
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->seq, seq);
  }
}

TEST_F(LinkSessionTest, RefusedMemoryIsAnsweredWithTheReasonAndTheConnectionGoesOn) {
  const UniqueFd socket = Greeted();
  uint64_t seq = 10;
  const auto refusal = [&](const UniqueFd& memory, const std::vector<std::byte>& region) {
    // NEED_ACK is not set: a refusal is answered all the same.
    SendBytes(socket, FrameBytes(kMemAdd, 0, 1, ++seq, region), {memory.get()});
    const auto reply = ReceiveFrame(socket);
    if (!reply || !reply->error() || reply->seq != seq || reply->error_code() != 3)
      return std::string();
    return reply->error_text();
  };
  const UniqueFd good = TestMemory(4 * 4096, SealShrink());
  SendBytes(socket, FrameBytes(kMemAdd, 2, 1, seq, Region(1, 0x10000, 4 * 4096)), {good.get()});
  const auto added = ReceiveFrame(socket);
  ASSERT_TRUE(added && !added->error());

  EXPECT_THAT(refusal(TestMemory(4096, 0), Region(2, 0, 4096)), HasSubstr("seal"));
  EXPECT_THAT(refusal(good, Region(3, 0x10000, 4096)), HasSubstr("overlap"));
  EXPECT_NE(refusal(good, Region(1, 0x100000, 4096)), "");      // id in use
  EXPECT_NE(refusal(good, Region(4, 0x100000, 5 * 4096)), "");  // too small
  EXPECT_NE(refusal(good, Region(5, 0x100000, 4096, 0xFFFFFFFFFFFFF000)), "");
  EXPECT_NE(refusal(good, Region(6, 0x100001, 4096)), "");  // not aligned
  EXPECT_NE(refusal(UniqueFd(::open("/proc/self/exe", O_RDONLY)), Region(7, 0, 4096)), "");
  EXPECT_NE(refusal(UniqueFd(::eventfd(0, EFD_CLOEXEC)), Region(8, 0, 4096)), "");
  EXPECT_THAT(refusal(good, Region(9, 0x100000, 4096, 0, 1)), HasSubstr("flags"));
  EXPECT_THAT(refusal(good, Region(9, 0x100000, 4096, 0, 2)), HasSubstr("flags"));

  const LinkStatus status = harness_.status();
  EXPECT_TRUE(status.connected);
  EXPECT_EQ(status.memory_regions, 1u);
  EXPECT_EQ(status.memory_bytes, 4u * 4096);
}

TEST_F(LinkSessionTest, RemovedRegionIsAnsweredAndAnUnknownOneRefused) {
  TestVmm vmm(harness_.path());
  ASSERT_TRUE(vmm.SetUp());
  LinkMemDelWire wire{};
  wire.id = TestVmm::kRingRegion;
  auto reply = vmm.Ask(LinkType::kMemDel, WireBytes(wire));
  ASSERT_TRUE(reply && !reply->error());
  EXPECT_EQ(harness_.status().memory_regions, 1u);
  reply = vmm.Ask(LinkType::kMemDel, WireBytes(wire));
  ASSERT_TRUE(reply.has_value());
  EXPECT_TRUE(reply->error());
  EXPECT_EQ(reply->error_code(), 3u);
}

TEST_F(LinkSessionTest, ReservedMessagesAreRefusedIfAskedAndElseIgnored) {
  const UniqueFd socket = Greeted();
  const UniqueFd memory = TestMemory(4096, SealShrink());
  const std::vector<std::byte> eight(8);
  SendBytes(socket, FrameBytes(0x564C000A, 0, 1, 1, eight), {memory.get()});  // STATE
  SendBytes(socket, FrameBytes(0x564C000A, 2, 1, 2, eight), {memory.get()});
  const auto state = ReceiveFrame(socket);
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->seq, 2u);
  EXPECT_EQ(state->error_code(), 2u);
  EXPECT_THAT(state->error_text(), HasSubstr("STATE is not supported"));
  SendBytes(socket, FrameBytes(0x564C0054, 0, 0, 3, eight));  // CLOSE, always answered
  const auto close = ReceiveFrame(socket);
  ASSERT_TRUE(close.has_value());
  EXPECT_EQ(close->type, LinkType::kClose);
  EXPECT_EQ(close->error_code(), 2u);
  EXPECT_TRUE(harness_.status().connected);
  EXPECT_EQ(harness_.status().frames_refused, 3u);
}

TEST_F(LinkSessionTest, VmmThatReadsNothingIsNotReadEither) {
  const UniqueFd socket = Greeted();
  ASSERT_EQ(::fcntl(socket.get(), F_SETFL, O_NONBLOCK), 0);
  const std::vector<std::byte> pause = FrameBytes(0x564C0005, 0, 0, 1, {});
  uint64_t sent = 0;
  // Both sockets fill: the answers' first, then ours. A frame may be cut there.
  while (sent < 1'000'000) {
    const ssize_t bytes = ::send(socket.get(), pause.data(), pause.size(), MSG_NOSIGNAL);
    if (bytes == static_cast<ssize_t>(pause.size())) {
      ++sent;
      continue;
    }
    ASSERT_LT(bytes, 0);
    // Each look at the status lets the link receive more, if it would.
    const uint64_t received = harness_.status().frames_received;
    bool moved = false;
    for (int i = 0; i < 50 && !moved; ++i) moved = harness_.status().frames_received != received;
    if (!moved) break;
  }
  EXPECT_LT(harness_.status().frames_received, sent + 1);  // and the HELLO
  ASSERT_LT(sent, 1'000'000u);
  for (uint64_t i = 0; i < sent; ++i) ASSERT_TRUE(ReceiveFrame(socket).has_value()) << i;
}

}  // namespace
}  // namespace vmbfs::hyperv
