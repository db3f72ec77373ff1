// Random writes, reads, ends and restarts against a queue of bytes; and a peer
// that writes anything.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <deque>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/pipe/byte_pipe.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kBufferBytes = 6000;

// One direction: what was written and not read. -1 is an end of stream.
using Model = std::deque<int>;

class BytePipeModelTest : public ::testing::TestWithParam<PageLayout> {
 protected:
  BytePipeModelTest() {
    Open(host_, &ChannelPair::OpenHost);
    Open(guest_, &ChannelPair::OpenGuest);
  }

  void Open(std::optional<BytePipe>& end,
            absl::StatusOr<std::unique_ptr<Channel>> (ChannelPair::*open)()) {
    end.reset();
    auto channel = (pair_.*open)();
    ASSERT_TRUE(channel.ok()) << channel.status();
    end.emplace(*std::move(channel));
  }

  size_t Size() { return 1 + random_() % (random_() % 2 == 0 ? 40 : kBufferBytes); }

  void Write(BytePipe& pipe, Model& model) {
    if (random_() % 8 == 0) {
      const auto ended = pipe.WriteEndOfStream();
      ASSERT_TRUE(ended.ok()) << ended.status();
      if (*ended) model.push_back(-1);
      return;
    }
    std::vector<std::byte> bytes(Size());
    for (std::byte& b : bytes) b = static_cast<std::byte>(random_());
    const auto written = pipe.Write(bytes);
    ASSERT_TRUE(written.ok()) << written.status();
    ASSERT_LE(*written, bytes.size());
    if (*written < bytes.size()) {
      ASSERT_FALSE(*pipe.ArmWrite(bytes.size() - *written));
    }
    for (size_t i = 0; i < *written; ++i) model.push_back(static_cast<int>(bytes[i]));
  }

  void Read(BytePipe& pipe, Model& model) {
    const std::span<std::byte> buffer = std::span(buffer_).first(Size());
    const auto read = pipe.Read(buffer);
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->has_value(), !model.empty());
    if (!read->has_value()) return;
    if (**read == 0) {
      ASSERT_EQ(model.front(), -1);
      model.pop_front();
      ++ends_;
      return;
    }
    for (size_t i = 0; i < **read; ++i) {
      ASSERT_EQ(model.front(), static_cast<int>(buffer[i]));
      model.pop_front();
    }
    bytes_ += **read;
    // No less than is there.
    ASSERT_TRUE(**read == buffer.size() || model.empty() || model.front() == -1);
  }

  std::mt19937 random_{1};
  ChannelPair pair_{{.data_pages = 2, .layout = GetParam()}};
  std::optional<BytePipe> host_;
  std::optional<BytePipe> guest_;
  std::array<std::byte, kBufferBytes> buffer_;
  uint64_t bytes_ = 0;
  uint64_t ends_ = 0;
};

TEST_P(BytePipeModelTest, BytesAndEndsCrossInOrderOverRestartsOfBothSides) {
  Model to_host;
  Model to_guest;
  for (int step = 0; step < 20'000; ++step) {
    switch (random_() % 6) {
      case 0:
        ASSERT_NO_FATAL_FAILURE(Write(*guest_, to_host)) << step;
        break;
      case 1:
        ASSERT_NO_FATAL_FAILURE(Write(*host_, to_guest)) << step;
        break;
      case 2:
        ASSERT_NO_FATAL_FAILURE(Read(*host_, to_host)) << step;
        break;
      case 3:
        ASSERT_NO_FATAL_FAILURE(Read(*guest_, to_guest)) << step;
        break;
      case 4:
        ASSERT_NO_FATAL_FAILURE(Open(host_, &ChannelPair::OpenHost));
        break;
      default:
        ASSERT_NO_FATAL_FAILURE(Open(guest_, &ChannelPair::OpenGuest));
        break;
    }
  }
  EXPECT_GT(bytes_, 1'000'000u);
  EXPECT_GT(ends_, 500u);
  EXPECT_TRUE(pair_.OutsideIsUntouched());
}

// Headers, descriptors and indices that change under the reader: each read ends
// in an error or within its buffer, and no byte outside the ring is touched.
TEST_P(BytePipeModelTest, RingsThatChangeWhileTheyAreReadDoNoHarm) {
  std::atomic<bool> stop = false;
  std::thread scribbler([&] {
    std::mt19937_64 random(3);
    RingMemory ring = pair_.GuestToHost();
    while (!stop) {
      // A small message somewhere, DATA or PARTIAL, or something else.
      std::array<std::byte, 40> bytes{std::byte{6}, std::byte{0}, std::byte{2},
                                      std::byte{0}, std::byte{4}, std::byte{0}};
      bytes[16] = static_cast<std::byte>(1 + random() % 2);
      bytes[20] = static_cast<std::byte>(random() % 9);
      bytes[22] = static_cast<std::byte>(random() % 4);
      if (random() % 16 == 0) bytes[random() % 24] = static_cast<std::byte>(random());
      ring.CopyIn(static_cast<uint32_t>(random() % 204 * 40), bytes);
      const auto index = static_cast<uint32_t>(random() % 204 * 40);
      ring.Store(random() % 2 == 0 ? ControlWord::kIn : ControlWord::kOut, index,
                 std::memory_order_relaxed);
    }
  });
  for (int round = 0; round < 3'000; ++round) {
    auto channel = pair_.OpenHost();
    if (!channel.ok()) continue;
    BytePipe pipe(*std::move(channel));
    for (int i = 0; i < 50; ++i) {
      const auto buffer = std::span(buffer_).first(1 + static_cast<size_t>(i) * 3);
      const auto read = pipe.Read(buffer);
      if (!read.ok()) {
        EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
        break;
      }
      if (!read->has_value()) break;
      ASSERT_LE(**read, buffer.size());
      bytes_ += **read;
    }
    pipe.ArmRead().status().IgnoreError();
  }
  stop = true;
  scribbler.join();
  EXPECT_GT(bytes_, 0u);
  EXPECT_TRUE(pair_.OutsideIsUntouched());
}

INSTANTIATE_TEST_SUITE_P(Layouts, BytePipeModelTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
