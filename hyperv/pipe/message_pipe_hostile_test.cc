// A guest that writes anything into its ring: each read must end in an error,
// a message within its bounds, or nothing; never in a touch outside the ring.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kDataPages = 2;
constexpr uint32_t kDataBytes = kDataPages * kPageBytes;
constexpr size_t kBufferBytes = 3000;

class HostilePeerTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  // Reads until an error or until nothing is left, as a device would.
  // Returns the number of messages.
  size_t DrainHost(MessagePipe& host) {
    size_t messages = 0;
    // Even the smallest packets fill a ring no more often than this at a time.
    for (uint32_t i = 0; i < kDataBytes / 24 + 2; ++i) {
      const auto read = host.Read(buffer_);
      if (!read.ok()) {
        EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
        return messages;
      }
      if (!read->has_value()) return messages;
      ++messages;
      EXPECT_EQ((*read)->data(), buffer_.data());
      EXPECT_LE((*read)->size(), kBufferBytes);
      host.Consume();
      const auto space = host.Reserve(100);
      if (space.ok() && space->has_value()) host.Send(100);
    }
    return messages;
  }

  std::optional<MessagePipe> OpenHost() {
    auto channel = pair_.OpenHost();
    if (!channel.ok()) return std::nullopt;
    return std::optional<MessagePipe>(std::in_place, *std::move(channel), GpaDirect::kServed);
  }

  ChannelPair pair_{{.data_pages = kDataPages, .layout = GetParam()}};
  std::array<std::byte, kBufferBytes> buffer_;
};

TEST_P(HostilePeerTest, RandomRingsAreReadWithoutHarm) {
  std::mt19937_64 random(1);
  RingMemory ring = pair_.GuestToHost();
  std::vector<std::byte> bytes(kDataBytes);
  for (int round = 0; round < 500; ++round) {
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    ring.CopyIn(0, bytes);
    for (const ControlWord word : {ControlWord::kIn, ControlWord::kOut}) {
      const auto value = static_cast<uint32_t>(random());
      ring.Store(word, round % 2 == 0 ? value : value % (kDataBytes / 8) * 8,
                 std::memory_order_relaxed);
    }
    ring.Store(ControlWord::kPendingSendSize, static_cast<uint32_t>(random()),
               std::memory_order_relaxed);
    if (auto host = OpenHost()) DrainHost(*host);
  }
  EXPECT_TRUE(pair_.OutsideIsUntouched());
}

// Rings of legal packets with a few bytes changed: what lies deeper than the
// first check is reached.
TEST_P(HostilePeerTest, DamagedPacketsAreReadWithoutHarm) {
  std::mt19937_64 random(2);
  RingMemory ring = pair_.GuestToHost();
  size_t messages = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto start = static_cast<uint32_t>(random() % (kDataBytes / 8) * 8);
    for (const ControlWord word : {ControlWord::kIn, ControlWord::kOut}) {
      ring.Store(word, start, std::memory_order_relaxed);
    }
    auto guest = pair_.OpenGuest();
    ASSERT_TRUE(guest.ok()) << guest.status();
    MessagePipe pipe(*std::move(guest));
    uint32_t packets = 0;
    while (*pipe.Write(std::vector<std::byte>(random() % 400))) ++packets;
    ASSERT_GT(packets, 5u);

    for (uint64_t changes = random() % 12; changes > 0; --changes) {
      const auto value = static_cast<std::byte>(random() % 16);
      // The first bytes of a random unit: often those of a descriptor.
      ring.CopyIn(static_cast<uint32_t>(random() % (kDataBytes / 8) * 8 + random() % 8),
                  std::array{value});
    }
    auto host = OpenHost();
    ASSERT_TRUE(host.has_value());
    messages += DrainHost(*host);
    // The other ring is the host's to write, and is left as it was opened.
    RingMemory replies = pair_.HostToGuest();
    replies.Store(ControlWord::kOut, replies.Load(ControlWord::kIn, std::memory_order_relaxed),
                  std::memory_order_relaxed);
  }
  EXPECT_GT(messages, 10'000u);
  EXPECT_TRUE(pair_.OutsideIsUntouched());
}

// The same while the guest changes bytes and indices under the reader.
TEST_P(HostilePeerTest, RingsThatChangeWhileTheyAreReadDoNoHarm) {
  std::atomic<bool> stop = false;
  std::thread scribbler([&] {
    std::mt19937_64 random(3);
    RingMemory ring = pair_.GuestToHost();
    RingMemory replies = pair_.HostToGuest();
    constexpr std::array words = {ControlWord::kIn, ControlWord::kOut, ControlWord::kInterruptMask,
                                  ControlWord::kPendingSendSize};
    while (!stop) {
      // A small legal packet somewhere, or something else.
      std::array<std::byte, 32> bytes{std::byte{6}, std::byte{0}, std::byte{2},
                                      std::byte{0}, std::byte{3}, std::byte{0}};
      bytes[16] = std::byte{1};
      bytes[random() % 6] = static_cast<std::byte>(random() % 8);
      ring.CopyIn(static_cast<uint32_t>(random() % (kDataBytes / 32) * 32), bytes);
      const auto index = static_cast<uint32_t>(random() % (kDataBytes / 32 + 1) * 32);
      ring.Store(words[random() % words.size()], index, std::memory_order_relaxed);
      replies.Store(words[random() % words.size()], index, std::memory_order_relaxed);
    }
  });
  size_t messages = 0;
  for (int round = 0; round < 20'000; ++round) {
    if (auto host = OpenHost()) {
      messages += DrainHost(*host);
      host->ArmRead().status().IgnoreError();
      host->ArmWrite(1000).status().IgnoreError();
    }
  }
  stop = true;
  scribbler.join();
  EXPECT_GT(messages, 0u);
  EXPECT_TRUE(pair_.OutsideIsUntouched());
}

INSTANTIATE_TEST_SUITE_P(Layouts, HostilePeerTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
