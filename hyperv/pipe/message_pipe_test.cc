#include "hyperv/pipe/message_pipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/packet/hex_bytes.h"

namespace vmbfs::hyperv {
namespace {

std::vector<std::byte> Message(size_t bytes, uint32_t seed) {
  std::vector<std::byte> message(bytes);
  for (size_t i = 0; i < bytes; ++i) message[i] = static_cast<std::byte>(seed + i * 5 + i / 256);
  return message;
}

class MessagePipeTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  void SetUp() override { Open(4); }

  void Open(size_t data_pages) {
    host_.reset();
    guest_.reset();
    pair_.emplace(ChannelPairOptions{.data_pages = data_pages, .layout = GetParam()});
    auto host = pair_->OpenHost();
    auto guest = pair_->OpenGuest();
    ASSERT_TRUE(host.ok() && guest.ok());
    host_.emplace(*std::move(host));
    guest_.emplace(*std::move(guest));
  }

  // Puts a packet with this payload, as it is, into the guest's ring.
  void SendRaw(std::span<const std::byte> payload) {
    OutgoingRing& ring = guest_->channel().outgoing();
    ASSERT_TRUE(*ring.Reserve(payload.size()));
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
    if (ring.Publish()) guest_->channel().SignalPeer();
  }

  void ExpectNext(MessagePipe& pipe, std::span<const std::byte> message) {
    const auto read = pipe.Read(buffer_);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_TRUE(read->has_value());
    ASSERT_EQ((*read)->data(), buffer_.data());
    ASSERT_TRUE(std::equal((*read)->begin(), (*read)->end(), message.begin(), message.end()));
  }

  void ExpectNothing(MessagePipe& pipe) {
    const auto read = pipe.Read(buffer_);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_FALSE(read->has_value());
  }

  std::optional<ChannelPair> pair_;
  std::optional<MessagePipe> host_;
  std::optional<MessagePipe> guest_;
  std::array<std::byte, 16384> buffer_;
};

TEST_P(MessagePipeTest, VersionExchangeIsTheBytesOfTheSpecification) {
  const auto request = HexBytes("01 00 00 00 00 00 00 00 00 00 01 00");
  const auto response = HexBytes("02 00 00 00 00 00 00 00 00 00 00 00");
  ASSERT_TRUE(*guest_->Write(request));
  ExpectNext(*host_, request);
  ASSERT_TRUE(*host_->Write(response));
  ExpectNext(*guest_, response);

  std::vector<std::byte> ring(48);
  pair_->GuestToHost().CopyOut(0, ring);
  EXPECT_EQ(ring, HexBytes("06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"
                           "01 00 00 00 0c 00 00 00 01 00 00 00 00 00 00 00"
                           "00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00"));
  pair_->HostToGuest().CopyOut(0, ring);
  EXPECT_EQ(ring, HexBytes("06 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00"
                           "01 00 00 00 0c 00 00 00 02 00 00 00 00 00 00 00"
                           "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"));
}

TEST_P(MessagePipeTest, MessagesFromNothingToTheLargestCrossWhole) {
  Open(5);
  ASSERT_EQ(host_->max_message_bytes(), 16384u);
  const auto all = Message(16384, 1);
  // Each small size, then strides that meet every rest of 8, and the largest.
  for (size_t bytes = 0; bytes <= 16384; bytes += bytes < 300 || bytes > 16370 ? 1 : 13) {
    const auto message = std::span(all).first(bytes);
    ASSERT_TRUE(*host_->Write(message)) << bytes;
    ASSERT_NO_FATAL_FAILURE(ExpectNext(*guest_, message)) << bytes;
    guest_->Consume();
  }
  EXPECT_TRUE(pair_->OutsideIsUntouched());
}

TEST_P(MessagePipeTest, LargestMessageFollowsTheRing) {
  // A packet stays below the ring's size less 8: 24 bytes around it, 8 of header.
  const std::array<size_t, 6> expected = {0, 4096 - 48, 8192 - 48, 12288 - 48, 16384 - 48, 16384};
  for (size_t pages = 1; pages <= 5; ++pages) {
    Open(pages);
    EXPECT_EQ(host_->max_message_bytes(), expected[pages]);
    const auto message = Message(expected[pages], 2);
    ASSERT_TRUE(*host_->Write(message));
    ExpectNext(*guest_, message);
  }
}

TEST_P(MessagePipeTest, SeveralMessagesAreReadBeforeOneConsume) {
  for (uint32_t i = 0; i < 5; ++i) ASSERT_TRUE(*guest_->Write(Message(100 + i, i)));
  for (uint32_t i = 0; i < 5; ++i) ExpectNext(*host_, Message(100 + i, i));
  ExpectNothing(*host_);
  EXPECT_EQ(host_->channel().incoming().out(), 0u);
  host_->Consume();
  EXPECT_EQ(host_->channel().incoming().out(), 5 * (24u + 112u));
}

TEST_P(MessagePipeTest, ReservationIsFilledInPlaceAndSentShorter) {
  for (int round = 0; round < 50; ++round) {  // around the ring's end several times
    const auto space = host_->Reserve(12288);
    ASSERT_TRUE(space.ok() && space->has_value());
    EXPECT_EQ((*space)->bytes, 12288u);
    size_t total = 0;
    for (const iovec& piece : (*space)->span()) {
      std::memset(piece.iov_base, 0x40 + round, piece.iov_len);
      total += piece.iov_len;
    }
    ASSERT_EQ(total, 12288u);
    ASSERT_NO_FATAL_FAILURE(ExpectNothing(*guest_));  // not before Send
    host_->Send(777);
    ASSERT_NO_FATAL_FAILURE(
        ExpectNext(*guest_, std::vector<std::byte>(777, static_cast<std::byte>(0x40 + round))));
    guest_->Consume();
  }
}

TEST_P(MessagePipeTest, MessageLargerThanTheBufferIsRefusedAndStays) {
  ASSERT_TRUE(*guest_->Write(Message(101, 3)));
  const auto refused = host_->Read(std::span(buffer_).first(100));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  // The padding needs no room: only the message does.
  const auto read = host_->Read(std::span(buffer_).first(101));
  ASSERT_TRUE(read.ok() && read->has_value());
  EXPECT_EQ((*read)->size(), 101u);
}

TEST_P(MessagePipeTest, IgnoredTypesAreSkippedAndCountedAndTheirSpaceReturned) {
  SendRaw(
      HexBytes("03 00 00 00 21 00 00 00 01 00 00 00 01 01 00 00 00 00 18 00 00 00 08 00 00 00"
               "50 00 00 00 00 00 00 01 50 00 00 00 00 00 00"));
  SendRaw(HexBytes("04 00 00 00 04 00 00 00 01 00 00 00"));
  SendRaw(HexBytes("05 00 00 00 00 00 00 00"));
  ASSERT_TRUE(*guest_->Write(Message(30, 4)));
  ExpectNext(*host_, Message(30, 4));
  EXPECT_EQ(host_->ignored_messages(), 3u);
  EXPECT_EQ(host_->channel().incoming().out(), 0u);  // the message is not consumed yet

  SendRaw(HexBytes("05 00 00 00 00 00 00 00"));
  ExpectNothing(*host_);
  EXPECT_EQ(host_->channel().incoming().out(), 0u);
  host_->Consume();

  SendRaw(HexBytes("05 00 00 00 00 00 00 00"));
  ExpectNothing(*host_);
  EXPECT_EQ(host_->channel().incoming().out(), guest_->channel().outgoing().in());
  EXPECT_EQ(host_->ignored_messages(), 5u);
}

TEST_P(MessagePipeTest, FloodOfIgnoredMessagesIsBoundedAndLosesNoMessage) {
  for (int i = 0; i < 3 * MessagePipe::kOthersPerReadMax; ++i) {
    ASSERT_NO_FATAL_FAILURE(SendRaw(HexBytes("05 00 00 00 00 00 00 00")));
  }
  ASSERT_TRUE(*guest_->Write(Message(30, 5)));
  for (int i = 0; i < 3; ++i) {
    ExpectNothing(*host_);
    EXPECT_EQ(host_->ignored_messages(),
              static_cast<uint64_t>(i + 1) * MessagePipe::kOthersPerReadMax);
    EXPECT_TRUE(*host_->ArmRead());  // so the caller comes back
  }
  ExpectNext(*host_, Message(30, 5));
}

TEST_P(MessagePipeTest, WhatIsNoPipeMessageIsRefusedWithoutMoving) {
  const std::array<std::string_view, 9> payloads = {
      "",                         // no header
      "00 00 00 00 00 00 00 00",  // type 0
      "02 00 00 00 08 00 04 00"
      "0000",  // PARTIAL is never on the wire
      "06 00 00 00 00 00 00 00",
      "01 01 00 00 00 00 00 00",
      "01 00 00 00 01 00 00 00",  // more data than payload
      "01 00 00 00 09 00 00 00 00",
      "01 00 00 00 ff ff ff ff 00",
      "03 00 00 00 ff ff ff ff 00",  // ignored types too
  };
  for (const std::string_view payload : payloads) {
    Open(4);
    SendRaw(HexBytes(payload));
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(host_->Read(buffer_).status().code(), absl::StatusCode::kInvalidArgument)
          << payload;
    }
    host_->Consume();
    EXPECT_EQ(host_->channel().incoming().out(), 0u);
  }
}

TEST_P(MessagePipeTest, PacketsThatAreNotPlainInBandAreRefused) {
  for (const std::string_view descriptor : {
           "06 00 02 00 03 00 01 00 0000000000000000 0100000000000000",  // wants a completion
           "0b 00 02 00 03 00 00 00 0000000000000000 0100000000000000",
           "07 00 03 00 04 00 00 00 0000000000000000 0000000000000000 0100000000000000",
           "09 00 05 00 06 00 00 00 0000000000000000 0000000001000000 0000000000000000"
           "0000000000000000 0100000000000000",
       }) {
    Open(4);
    auto packet = HexBytes(descriptor);
    packet.resize(packet.size() + 8);
    RingMemory ring = pair_->GuestToHost();
    ring.CopyIn(0, packet);
    ring.Store(ControlWord::kIn, static_cast<uint32_t>(packet.size()), std::memory_order_release);
    ASSERT_TRUE((*host_->channel().incoming().Peek()).has_value()) << descriptor;
    const auto read = host_->Read(buffer_);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << descriptor;
  }
}

TEST_P(MessagePipeTest, FullRingTakesNoMessageUntilThePeerConsumed) {
  const auto message = Message(12288, 6);
  ASSERT_TRUE(*host_->Write(message));
  EXPECT_FALSE(*host_->Write(message));
  EXPECT_FALSE((*host_->Reserve(12288)).has_value());
  EXPECT_FALSE(*host_->ArmWrite(12288));
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  ExpectNext(*guest_, message);
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  guest_->Consume();
  EXPECT_EQ(pair_->signals_to_host(), 1u);

  // The wait ends with the reservation it was for.
  RingMemory ring = pair_->HostToGuest();
  EXPECT_NE(ring.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed), 0u);
  ASSERT_TRUE(*host_->Write(message));
  EXPECT_EQ(ring.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed), 0u);
  EXPECT_FALSE(*host_->ArmWrite(12288));
  EXPECT_NE(ring.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed), 0u);
  host_->DisarmWrite();
  EXPECT_EQ(ring.Load(ControlWord::kPendingSendSize, std::memory_order_relaxed), 0u);
}

TEST_P(MessagePipeTest, ReaderIsSignalledWhenItSleepsAndNotWhileItWorks) {
  ASSERT_TRUE(*guest_->Write(Message(8, 1)));
  EXPECT_EQ(pair_->signals_to_host(), 0u);  // masked since the open
  EXPECT_TRUE(*host_->ArmRead());
  ExpectNext(*host_, Message(8, 1));
  host_->Consume();
  ASSERT_TRUE(*guest_->Write(Message(8, 2)));
  EXPECT_EQ(pair_->signals_to_host(), 0u);  // reading masked it again
  ExpectNext(*host_, Message(8, 2));
  host_->Consume();
  EXPECT_FALSE(*host_->ArmRead());
  ASSERT_TRUE(*guest_->Write(Message(8, 3)));
  ASSERT_TRUE(*guest_->Write(Message(8, 4)));
  EXPECT_EQ(pair_->signals_to_host(), 1u);  // one for both
}

TEST_P(MessagePipeTest, BrokenIndicesAreErrorsOfEveryCallThatLooks) {
  RingMemory in_ring = pair_->GuestToHost();
  RingMemory out_ring = pair_->HostToGuest();
  in_ring.Store(ControlWord::kIn, 3, std::memory_order_relaxed);
  out_ring.Store(ControlWord::kOut, 1 << 20, std::memory_order_relaxed);
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(host_->Read(buffer_).status().code(), kCode);
  EXPECT_EQ(host_->ArmRead().status().code(), kCode);
  EXPECT_EQ(host_->Reserve(1).status().code(), kCode);
  EXPECT_EQ(host_->Write(Message(1, 1)).status().code(), kCode);
  EXPECT_EQ(host_->ArmWrite(1).status().code(), kCode);
}

INSTANTIATE_TEST_SUITE_P(Layouts, MessagePipeTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
