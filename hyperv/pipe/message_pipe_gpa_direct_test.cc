// Set-ups and tear-downs on their way through the pipe: when they are seen, and
// what a broken one does.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/packet/hex_bytes.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs::hyperv {
namespace {

// shared/specs/vmbus.md section 5.3, as packets at ring offset 0x30: descriptor,
// header, data, padding, trailer.
constexpr std::string_view kSetUpPacket =
    "06 00 02 00 08 00 00 00 00 00 00 00 00 00 00 00"
    "03 00 00 00 21 00 00 00 01 00 00 00 01 01 00 00"
    "00 00 18 00 00 00 08 00 00 00 50 00 00 00 00 00"
    "00 01 50 00 00 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 30 00 00 00";
constexpr std::string_view kTearDownPacket =
    "06 00 02 00 04 00 00 00 00 00 00 00 00 00 00 00"
    "04 00 00 00 04 00 00 00 01 00 00 00 00 00 00 00"
    "00 00 00 00 30 00 00 00";
constexpr std::string_view kIndicationComplete = "05 00 00 00 00 00 00 00";

std::vector<std::byte> PayloadOf(std::string_view packet) {
  std::vector<std::byte> bytes = HexBytes(packet);
  return {bytes.begin() + 16, bytes.end() - 8};
}

class MessagePipeGpaDirectTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  MessagePipeGpaDirectTest() { Open(GpaDirect::kServed); }

  void Open(GpaDirect gpa_direct) {
    host_.reset();
    guest_.reset();
    pair_.emplace(ChannelPairOptions{.layout = GetParam()});
    auto host = pair_->OpenHost();
    auto guest = pair_->OpenGuest();
    EXPECT_TRUE(host.ok() && guest.ok());
    host_.emplace(*std::move(host), gpa_direct);
    guest_.emplace(*std::move(guest));
  }

  // The firmware's deferred signal: what it owes is remembered, not sent.
  void SendDeferred(std::span<const std::byte> payload) {
    OutgoingRing& ring = guest_->channel().outgoing();
    ASSERT_TRUE(*ring.Reserve(payload.size()));
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
    signal_owed_ = ring.Publish() || signal_owed_;
  }
  void Request(std::span<const std::byte> message) {
    const uint64_t signals = pair_->signals_to_host();
    ASSERT_TRUE(*guest_->Write(message));
    if (std::exchange(signal_owed_, false) && pair_->signals_to_host() == signals) {
      guest_->channel().SignalPeer();
    }
  }

  void ExpectNext(std::span<const std::byte> message) {
    const auto read = host_->Read(buffer_);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_TRUE(read->has_value());
    ASSERT_TRUE(std::equal((*read)->begin(), (*read)->end(), message.begin(), message.end()));
  }
  void ExpectNothing() {
    const auto read = host_->Read(buffer_);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_FALSE(read->has_value());
  }

  std::optional<ChannelPair> pair_;
  std::optional<MessagePipe> host_;
  std::optional<MessagePipe> guest_;
  bool signal_owed_ = false;
  std::array<std::byte, 16384> buffer_;
  const std::vector<std::byte> request_ = HexBytes("07 00 00 00 00 00 00 00 01 00 00 00");
};

TEST_P(MessagePipeGpaDirectTest, BytesOfTheSpecificationInTheRingAreRegisteredAndTornDown) {
  // A version request fills the first 0x30 bytes, as in the specification.
  ASSERT_TRUE(*guest_->Write(HexBytes("01 00 00 00 00 00 00 00 00 00 01 00")));
  ASSERT_TRUE((*host_->Read(buffer_)).has_value());
  RingMemory ring = pair_->GuestToHost();
  ring.CopyIn(0x30, HexBytes(kSetUpPacket));
  ring.Store(ControlWord::kIn, 0x30 + 72, std::memory_order_release);
  ExpectNothing();
  auto part = host_->gpa_direct().FindWritable(1, 0, 0x1800);
  ASSERT_TRUE(part.ok()) << part.status();
  const auto range = part->Next();
  ASSERT_TRUE(range.has_value());
  EXPECT_EQ(range->byte_offset, 0x800u);
  EXPECT_EQ(range->byte_count, 0x1800u);
  EXPECT_THAT(range->page_frames, ::testing::ElementsAre(0x5000, 0x5001));
  EXPECT_FALSE(part->Next().has_value());

  ring.CopyIn(0x30 + 72, HexBytes(kTearDownPacket));
  ring.Store(ControlWord::kIn, 0x30 + 72 + 40, std::memory_order_release);
  ExpectNothing();
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
  EXPECT_EQ(host_->ignored_messages(), 0u);
}

// Statement 65 of shared/specs/vmbus.md section 13.
TEST_P(MessagePipeGpaDirectTest, SetUpAndRequestWithOneSignalAreBothProcessed) {
  ExpectNothing();
  ASSERT_FALSE(*host_->ArmRead());
  SendDeferred(PayloadOf(kSetUpPacket));
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
  Request(request_);
  EXPECT_EQ(pair_->signals_to_host(), 1u);
  ExpectNext(request_);
  EXPECT_EQ(host_->gpa_direct().count(), 1u);
  EXPECT_EQ(host_->channel().incoming().out(), 0u);  // the request is not answered yet
  host_->Consume();
  EXPECT_EQ(host_->channel().incoming().out(), guest_->channel().outgoing().in());
  EXPECT_FALSE(*host_->ArmRead());
}

TEST_P(MessagePipeGpaDirectTest, TearDownWithoutASignalIsProcessedBeforeTheNextRequest) {
  SendDeferred(PayloadOf(kSetUpPacket));
  Request(request_);
  ExpectNext(request_);
  host_->Consume();
  ExpectNothing();
  ASSERT_FALSE(*host_->ArmRead());
  const uint64_t signals = pair_->signals_to_host();
  SendDeferred(PayloadOf(kTearDownPacket));
  EXPECT_EQ(pair_->signals_to_host(), signals);
  EXPECT_EQ(host_->gpa_direct().count(), 1u);  // nobody could know
  Request(request_);
  ExpectNext(request_);
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
}

TEST_P(MessagePipeGpaDirectTest, WriterOwesTheSignalOfASetUpUntilItsRequest) {
  const std::vector<std::byte> set_up = PayloadOf(kSetUpPacket);
  ExpectNothing();
  ASSERT_FALSE(*host_->ArmRead());
  ASSERT_TRUE(*guest_->WriteDeferred(PipeMessageType::kSetUpGpaDirect,
                                     std::span(set_up).subspan(sizeof(PipeHeader), 33)));
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  ASSERT_TRUE(*guest_->Write(request_));
  EXPECT_EQ(pair_->signals_to_host(), 1u);
  ExpectNext(request_);
  EXPECT_EQ(host_->gpa_direct().count(), 1u);
  ASSERT_TRUE(*guest_->Write(request_));
  EXPECT_EQ(pair_->signals_to_host(), 1u) << "the host is awake";
}

TEST_P(MessagePipeGpaDirectTest, WriterThatMustSleepGivesTheSignalItOwes) {
  const std::vector<std::byte> tear_down = HexBytes("01 00 00 00");
  ExpectNothing();
  ASSERT_FALSE(*host_->ArmRead());
  while (*guest_->WriteDeferred(PipeMessageType::kTearDownGpaDirect, tear_down)) {
  }
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  ASSERT_FALSE(*guest_->ArmWrite(tear_down.size()));
  EXPECT_EQ(pair_->signals_to_host(), 1u);
}

TEST_P(MessagePipeGpaDirectTest, TearDownBehindTheRequestIsNotSeenBeforeIt) {
  SendDeferred(PayloadOf(kSetUpPacket));
  Request(request_);
  SendDeferred(PayloadOf(kTearDownPacket));
  ExpectNext(request_);
  EXPECT_EQ(host_->gpa_direct().count(), 1u);
  ExpectNothing();
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
  EXPECT_EQ(host_->channel().incoming().out(), 0u);  // behind a request that waits
}

TEST_P(MessagePipeGpaDirectTest, MalformedSetUpOrTearDownIsRefusedWithoutMoving) {
  std::vector<std::vector<std::byte>> payloads;
  for (const size_t lost_bytes : {1, 8, 32, 33}) {  // of a set-up's data
    std::vector<std::byte> payload = PayloadOf(kSetUpPacket);
    payload[4] = static_cast<std::byte>(0x21 - lost_bytes);
    payloads.push_back(payload);
  }
  payloads.push_back(HexBytes("04 00 00 00 03 00 00 00 01 00 00 00"));
  payloads.push_back(HexBytes("04 00 00 00 05 00 00 00 01 00 00 00 00"));
  payloads.push_back(HexBytes("03 00 00 00 ff ff ff ff 00"));
  for (const std::vector<std::byte>& payload : payloads) {
    Open(GpaDirect::kServed);
    ASSERT_NO_FATAL_FAILURE(SendDeferred(payload));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(host_->Read(buffer_).status().code(), absl::StatusCode::kInvalidArgument);
    }
    EXPECT_EQ(host_->channel().incoming().cursor(), 0u);
    EXPECT_EQ(host_->gpa_direct().count(), 0u);
  }
}

TEST_P(MessagePipeGpaDirectTest, MessageLargerThanTheProtocolAllowsIsRefused) {
  host_.reset();
  guest_.reset();
  pair_.emplace(ChannelPairOptions{.data_pages = 6, .layout = GetParam()});
  host_.emplace(*pair_->OpenHost(), GpaDirect::kServed);
  guest_.emplace(*pair_->OpenGuest());
  std::vector<std::byte> payload(8 + 16385);
  payload[0] = std::byte{3};
  payload[4] = std::byte{0x01};
  payload[5] = std::byte{0x40};
  SendDeferred(payload);
  EXPECT_EQ(host_->Read(buffer_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(MessagePipeGpaDirectTest, OneReadHandlesAFewOnlyAndLosesNothing) {
  constexpr int kRounds = 3;
  for (int i = 0; i < kRounds * MessagePipe::kOthersPerReadMax; ++i) {
    std::vector<std::byte> payload = PayloadOf(kSetUpPacket);
    payload[8] = static_cast<std::byte>(i % 32);
    ASSERT_NO_FATAL_FAILURE(SendDeferred(i % 2 == 0 ? payload : HexBytes(kIndicationComplete)));
  }
  Request(request_);
  for (int i = 0; i < kRounds; ++i) {
    ExpectNothing();
    EXPECT_EQ(host_->ignored_messages(),
              static_cast<uint64_t>(i + 1) * MessagePipe::kOthersPerReadMax / 2);
    EXPECT_TRUE(*host_->ArmRead());
  }
  EXPECT_EQ(host_->gpa_direct().count(), 16u);
  ExpectNext(request_);
}

TEST_P(MessagePipeGpaDirectTest, SideThatServesNoneIgnoresEvenMalformedOnes) {
  Open(GpaDirect::kIgnored);
  SendDeferred(PayloadOf(kSetUpPacket));
  SendDeferred(HexBytes("04 00 00 00 03 00 00 00 01 00 00 00"));
  ExpectNothing();
  EXPECT_EQ(host_->ignored_messages(), 2u);
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
}

TEST_P(MessagePipeGpaDirectTest, RegistrationsAreGoneAfterTheChannelWasOpenedAgain) {
  SendDeferred(PayloadOf(kSetUpPacket));
  ExpectNothing();
  ASSERT_EQ(host_->gpa_direct().count(), 1u);
  host_.reset();
  host_.emplace(*pair_->OpenHost(), GpaDirect::kServed);
  ExpectNothing();
  EXPECT_EQ(host_->gpa_direct().count(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Layouts, MessagePipeGpaDirectTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
