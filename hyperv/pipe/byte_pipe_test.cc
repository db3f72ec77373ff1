#include "hyperv/pipe/byte_pipe.h"

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

namespace vmbfs::hyperv {
namespace {

std::vector<std::byte> Bytes(size_t count, uint32_t seed = 1) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(seed + i * 7 + i / 256);
  return bytes;
}

class BytePipeTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  BytePipeTest() { Open(4); }

  void Open(size_t data_pages) {
    host_.reset();
    guest_.reset();
    pair_.emplace(ChannelPairOptions{.data_pages = data_pages, .layout = GetParam()});
    ReopenHost();
    auto guest = pair_->OpenGuest();
    EXPECT_TRUE(guest.ok()) << guest.status();
    guest_.emplace(*std::move(guest));
  }

  // As a server does after a restart: new rings over the same pages.
  void ReopenHost() {
    host_.reset();
    auto host = pair_->OpenHost();
    EXPECT_TRUE(host.ok()) << host.status();
    host_.emplace(*std::move(host));
  }

  // Puts a packet with this payload, as it is, into the guest's ring.
  void SendRaw(std::span<const std::byte> payload) {
    OutgoingRing& ring = guest_->channel().outgoing();
    ASSERT_TRUE(*ring.Reserve(payload.size()));
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
    if (ring.Publish()) guest_->channel().SignalPeer();
  }

  void ExpectBytes(size_t ask_bytes, std::span<const std::byte> expected) {
    const auto read = host_->Read(std::span(buffer_).first(ask_bytes));
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_TRUE(read->has_value());
    ASSERT_EQ(**read, expected.size());
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), buffer_.begin()));
  }
  void ExpectEnd() { ExpectBytes(buffer_.size(), {}); }
  void ExpectNothing() {
    const auto read = host_->Read(buffer_);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_FALSE(read->has_value());
  }
  void ExpectBroken() {
    EXPECT_EQ(host_->Read(buffer_).status().code(), absl::StatusCode::kInvalidArgument);
  }

  std::vector<std::byte> RingBytes(uint32_t offset, size_t count) const {
    std::vector<std::byte> bytes(count);
    pair_->GuestToHost().CopyOut(offset, bytes);
    return bytes;
  }

  std::optional<ChannelPair> pair_;
  std::optional<BytePipe> host_;
  std::optional<BytePipe> guest_;
  std::array<std::byte, 20'000> buffer_;
};

TEST_P(BytePipeTest, WriteIsSplitIntoChunksAndReadJoinsThem) {
  const auto bytes = Bytes(5000);
  EXPECT_EQ(*guest_->Write(bytes), 5000u);
  EXPECT_EQ(guest_->channel().outgoing().packets(), 3u);
  EXPECT_EQ(RingBytes(16, 8), HexBytes("01 00 00 00 00 08 00 00"));
  ExpectBytes(20'000, bytes);
  EXPECT_EQ(host_->channel().incoming().out(), guest_->channel().outgoing().in());
  ExpectNothing();
}

TEST_P(BytePipeTest, HalfReadMessageIsMarkedPartialWhereItLies) {
  const auto bytes = Bytes(10);
  ASSERT_EQ(*guest_->Write(bytes), 10u);
  ExpectBytes(4, std::span(bytes).first(4));
  EXPECT_EQ(RingBytes(16, 8), HexBytes("02 00 00 00 0a 00 04 00"));
  EXPECT_EQ(host_->channel().incoming().out(), 0u);
  ExpectBytes(5, std::span(bytes).subspan(4, 5));
  EXPECT_EQ(RingBytes(16, 8), HexBytes("02 00 00 00 0a 00 09 00"));
  ExpectBytes(5, std::span(bytes).subspan(9));
  EXPECT_EQ(host_->channel().incoming().out(), 16u + 24 + 8);
}

TEST_P(BytePipeTest, ReaderGoesOnAfterARestartAtEveryByte) {
  Open(1);  // so that the packets come around the ring's end
  const auto bytes = Bytes(3000);
  for (size_t first = 1; first < 3000; first += first < 40 ? 1 : 97) {
    ASSERT_EQ(*guest_->Write(bytes), 3000u);
    ASSERT_NO_FATAL_FAILURE(ExpectBytes(first, std::span(bytes).first(first)));
    ReopenHost();
    ASSERT_NO_FATAL_FAILURE(ExpectBytes(20'000, std::span(bytes).subspan(first))) << first;
    ASSERT_NO_FATAL_FAILURE(ExpectNothing());
  }
  EXPECT_TRUE(pair_->OutsideIsUntouched());
}

TEST_P(BytePipeTest, LargestMessageOfAnotherWriterIsReadByteByByteOverRestarts) {
  Open(6);
  const auto bytes = Bytes(16384);
  std::vector<std::byte> payload = HexBytes("01 00 00 00 00 40 00 00");
  payload.insert(payload.end(), bytes.begin(), bytes.end());
  SendRaw(payload);
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i % 64 == 0) ReopenHost();
    ASSERT_NO_FATAL_FAILURE(ExpectBytes(1, std::span(bytes).subspan(i, 1))) << i;
  }
  ExpectNothing();
}

// Statement 63 of shared/specs/vmbus.md section 13.
TEST_P(BytePipeTest, EndOfStreamIsToldOnceAfterAllBytes) {
  const auto bytes = Bytes(3000);
  ASSERT_EQ(*guest_->Write(bytes), 3000u);
  ASSERT_TRUE(*guest_->WriteEndOfStream());
  const uint32_t end_packet = guest_->channel().outgoing().in() - 32;
  EXPECT_EQ(RingBytes(end_packet + 16, 8), HexBytes("01 00 00 00 00 00 00 00"));
  ExpectBytes(1000, std::span(bytes).first(1000));
  ExpectBytes(20'000, std::span(bytes).subspan(1000));
  // Seen, not told: it must survive a restart, and its writer may wait for it.
  EXPECT_EQ(host_->channel().incoming().out(), end_packet);
  EXPECT_TRUE(*host_->ArmRead());
  ExpectEnd();
  EXPECT_EQ(host_->channel().incoming().out(), guest_->channel().outgoing().in());
  ExpectNothing();
  ExpectNothing();
  EXPECT_FALSE(*host_->ArmRead());
}

TEST_P(BytePipeTest, EndOfStreamThatWasNotToldSurvivesARestart) {
  const auto bytes = Bytes(100);
  ASSERT_EQ(*guest_->Write(bytes), 100u);
  ASSERT_TRUE(*guest_->WriteEndOfStream());
  ExpectBytes(40, std::span(bytes).first(40));
  ReopenHost();
  ExpectBytes(20'000, std::span(bytes).subspan(40));
  ReopenHost();
  ExpectEnd();
  ReopenHost();
  ExpectNothing();
}

TEST_P(BytePipeTest, StreamsAfterAnEndAreKeptApart) {
  ASSERT_TRUE(*guest_->WriteEndOfStream());
  ASSERT_TRUE(*guest_->WriteEndOfStream());
  ASSERT_EQ(*guest_->Write(Bytes(5)), 5u);
  ExpectEnd();
  ExpectEnd();
  ExpectBytes(20'000, Bytes(5));
}

TEST_P(BytePipeTest, WhatAByteStreamCannotHaveIsRefusedWithoutMoving) {
  for (const std::string_view payload : {
           "",
           "00 00 00 00 00 00 00 00",
           "03 00 00 00 00 00 00 00",
           "05 00 00 00 00 00 00 00",
           "01 01 00 00 00 00 00 00",
           "01 00 00 00 09 00 00 00 00",
           "01 00 00 00 ff ff ff ff 00",
           "02 00 00 00 08 00 08 00 0000000000000000",  // all of it was read
           "02 00 00 00 08 00 09 00 0000000000000000",
           "02 00 00 00 00 00 00 00 0000000000000000",
           "02 00 00 00 09 00 01 00 0000000000000000",  // more than its packet
           "02 00 00 00 ff ff 01 00 0000000000000000",
       }) {
    Open(4);
    SendRaw(HexBytes(payload));
    ExpectBroken();
    ExpectBroken();
    EXPECT_EQ(host_->channel().incoming().cursor(), 0u) << payload;
    EXPECT_EQ(host_->channel().incoming().out(), 0u) << payload;
  }
}

TEST_P(BytePipeTest, MessageLargerThanTheProtocolAllowsIsRefused) {
  Open(6);
  std::vector<std::byte> payload = HexBytes("01 00 00 00 01 40 00 00");
  payload.resize(8 + 16385);
  SendRaw(payload);
  ExpectBroken();
}

TEST_P(BytePipeTest, BytesAheadOfABrokenMessageAreReadFirst) {
  ASSERT_EQ(*guest_->Write(Bytes(10)), 10u);
  SendRaw(HexBytes("07 00 00 00 00 00 00 00"));
  ExpectBytes(20'000, Bytes(10));
  ExpectBroken();
}

TEST_P(BytePipeTest, HeaderThatThePeerRewritesIsNotReadAgain) {
  const auto bytes = Bytes(100);
  ASSERT_EQ(*guest_->Write(bytes), 100u);
  ASSERT_EQ(*guest_->Write(Bytes(7)), 7u);
  ASSERT_TRUE(*guest_->WriteEndOfStream());
  RingMemory ring = pair_->GuestToHost();
  size_t done = 0;
  for (const std::string_view header :
       {"02 00 00 00 ff ff 00 00", "02 00 00 00 64 00 64 00", "07 00 00 00 ff ff ff ff"}) {
    ASSERT_NO_FATAL_FAILURE(ExpectBytes(30, std::span(bytes).subspan(done, 30)));
    done += 30;
    ring.CopyIn(16, HexBytes(header));
    ring.CopyIn(0, HexBytes("06 00 09 00 ff ff 00 00"));  // and its descriptor
  }
  std::vector<std::byte> rest = {bytes.begin() + 90, bytes.end()};
  const auto next = Bytes(7);
  rest.insert(rest.end(), next.begin(), next.end());
  ExpectBytes(20'000, rest);
  // The end was seen with it: it stays one.
  ring.CopyIn(host_->channel().incoming().cursor() + 16, HexBytes("01 00 00 00 ff ff 00 00"));
  ExpectEnd();
  ExpectNothing();
}

TEST_P(BytePipeTest, FullRingTakesAPartAndTheWriterIsSignalledWhenMoreFits) {
  Open(1);
  const auto bytes = Bytes(10'000);
  const size_t taken = *host_->Write(bytes);
  EXPECT_EQ(taken, 2048u);  // a second chunk would leave no byte
  EXPECT_EQ(*host_->Write(std::span(bytes).subspan(taken)), 0u);
  EXPECT_FALSE(*host_->ArmWrite(10'000));
  EXPECT_EQ(pair_->signals_to_host(), 0u);
  std::array<std::byte, 5000> buffer;
  EXPECT_EQ(**guest_->Read(buffer), 2048u);
  EXPECT_EQ(pair_->signals_to_host(), 1u);
  EXPECT_EQ(*host_->Write(std::span(bytes).subspan(taken)), 2048u);
  EXPECT_EQ(pair_->HostToGuest().Load(ControlWord::kPendingSendSize, std::memory_order_relaxed),
            0u);
  // What is left of the ring is enough for an end.
  EXPECT_TRUE(*host_->WriteEndOfStream());
  EXPECT_EQ(*host_->Write({}), 0u);
}

TEST_P(BytePipeTest, SleepingReaderIsSignalledOnceForAWriteOfManyChunks) {
  EXPECT_FALSE(*host_->ArmRead());
  ASSERT_EQ(*guest_->Write(Bytes(9000)), 9000u);
  EXPECT_EQ(pair_->signals_to_host(), 1u);
  EXPECT_TRUE(*host_->ArmRead());
}

TEST_P(BytePipeTest, BrokenIndicesAreErrorsOfEveryCallThatLooks) {
  RingMemory in_ring = pair_->GuestToHost();
  RingMemory out_ring = pair_->HostToGuest();
  in_ring.Store(ControlWord::kIn, 3, std::memory_order_relaxed);
  out_ring.Store(ControlWord::kOut, 1 << 20, std::memory_order_relaxed);
  constexpr auto kCode = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(host_->Read(buffer_).status().code(), kCode);
  EXPECT_EQ(host_->ArmRead().status().code(), kCode);
  EXPECT_EQ(host_->Write(Bytes(1)).status().code(), kCode);
  EXPECT_EQ(host_->WriteEndOfStream().status().code(), kCode);
  EXPECT_EQ(host_->ArmWrite(1).status().code(), kCode);
}

INSTANTIATE_TEST_SUITE_P(Layouts, BytePipeTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
