// Both ends on threads of their own that sleep on eventfds whenever the rules
// allow it: a wake-up that is lost shows as a time-out.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <tuple>

#include "hyperv/channel/channel_pair.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kTimeoutMs = 20'000;

// One end: a pipe and the doorbell that its peer rings.
class End {
 public:
  End(std::unique_ptr<Channel> channel, int doorbell)
      : pipe_(std::move(channel)), doorbell_(doorbell) {}

  // Waits for the doorbell; false when it does not ring in time.
  bool Sleep() {
    ++sleeps_;
    pollfd poll_fd = {.fd = doorbell_, .events = POLLIN, .revents = 0};
    if (::poll(&poll_fd, 1, kTimeoutMs) != 1) return false;
    uint64_t rings;
    return ::read(doorbell_, &rings, sizeof(rings)) == sizeof(rings);
  }

  // Sends `bytes` of a message that starts with its number.
  bool Send(uint32_t number, size_t bytes) {
    while (true) {
      const auto space = pipe_.Reserve(bytes);
      if (!space.ok()) return false;
      if (space->has_value()) break;
      const auto fits = pipe_.ArmWrite(bytes);
      if (!fits.ok()) return false;
      if (!*fits && !Sleep()) return false;
    }
    message_.fill(static_cast<std::byte>(number));
    std::memcpy(message_.data(), &number, sizeof(number));
    pipe_.channel().outgoing().CopyIn(8, std::span(message_).first(bytes));
    pipe_.Send(bytes);
    return true;
  }

  // Receives the message that has this number and size.
  bool Receive(uint32_t number, size_t bytes) {
    while (true) {
      const auto read = pipe_.Read(message_);
      if (!read.ok()) return false;
      if (read->has_value()) {
        uint32_t seen = 0;
        std::memcpy(&seen, (*read)->data(), sizeof(seen));
        const bool same = seen == number && (*read)->size() == bytes &&
                          (*read)->back() == static_cast<std::byte>(number);
        pipe_.Consume();
        return same;
      }
      const auto more = pipe_.ArmRead();
      if (!more.ok()) return false;
      if (!*more && !Sleep()) return false;
    }
  }

  size_t max_message_bytes() const { return pipe_.max_message_bytes(); }
  uint64_t sleeps() const { return sleeps_; }

 private:
  MessagePipe pipe_;
  int doorbell_;
  uint64_t sleeps_ = 0;
  std::array<std::byte, 16384> message_;
};

class MessagePipeThreadsTest
    : public ::testing::TestWithParam<std::tuple<PageLayout, InterruptMasking>> {
 protected:
  static void Ring(int doorbell) {
    const uint64_t one = 1;
    ASSERT_EQ(::write(doorbell, &one, sizeof(one)), ssize_t{sizeof(one)});
  }

  void SetUp() override {
    auto host = pair_.OpenHost();
    auto guest = pair_.OpenGuest();
    ASSERT_TRUE(host.ok() && guest.ok());
    host_.emplace(*std::move(host), host_doorbell_.get());
    guest_.emplace(*std::move(guest), guest_doorbell_.get());
  }

  // Sizes that both sides know, from a number of 5 bytes to the largest message.
  size_t SizeOf(uint32_t number) const {
    std::minstd_rand random(number + 1);
    random.discard(2);
    return 5 + random() % (number % 3 == 0 ? host_->max_message_bytes() - 4 : 300);
  }

  UniqueFd host_doorbell_{::eventfd(0, EFD_CLOEXEC)};
  UniqueFd guest_doorbell_{::eventfd(0, EFD_CLOEXEC)};
  // One page: both full and empty come often.
  ChannelPair pair_{{.data_pages = 1,
                     .layout = std::get<0>(GetParam()),
                     .guest_masking = std::get<1>(GetParam()),
                     .on_host_signalled = [this] { Ring(host_doorbell_.get()); },
                     .on_guest_signalled = [this] { Ring(guest_doorbell_.get()); }}};
  std::optional<End> host_;
  std::optional<End> guest_;
};

TEST_P(MessagePipeThreadsTest, PingPongLosesNoWakeUp) {
  constexpr uint32_t kRounds = 5'000;
  std::thread guest([&] {
    for (uint32_t i = 0; i < kRounds; ++i) {
      ASSERT_TRUE(guest_->Send(i, SizeOf(i))) << i;
      ASSERT_TRUE(guest_->Receive(i, SizeOf(i + 1))) << i;
    }
  });
  for (uint32_t i = 0; i < kRounds; ++i) {
    EXPECT_TRUE(host_->Receive(i, SizeOf(i))) << i;
    EXPECT_TRUE(host_->Send(i, SizeOf(i + 1))) << i;
    if (HasFailure()) break;
  }
  guest.join();
  EXPECT_GT(host_->sleeps() + guest_->sleeps(), 0u);
}

TEST_P(MessagePipeThreadsTest, StreamThroughAFullRingLosesNoWakeUp) {
  constexpr uint32_t kMessages = 20'000;
  std::thread guest([&] {
    for (uint32_t i = 0; i < kMessages; ++i) ASSERT_TRUE(guest_->Send(i, SizeOf(i))) << i;
    for (uint32_t i = 0; i < kMessages; ++i) ASSERT_TRUE(guest_->Receive(i, SizeOf(i))) << i;
  });
  for (uint32_t i = 0; i < kMessages && !HasFailure(); ++i) {
    EXPECT_TRUE(host_->Receive(i, SizeOf(i))) << i;
  }
  for (uint32_t i = 0; i < kMessages && !HasFailure(); ++i) {
    EXPECT_TRUE(host_->Send(i, SizeOf(i))) << i;
  }
  guest.join();
  EXPECT_GT(host_->sleeps() + guest_->sleeps(), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, MessagePipeThreadsTest,
                         ::testing::Combine(::testing::ValuesIn(kPageLayouts),
                                            ::testing::Values(InterruptMasking::kWhileBusy,
                                                              InterruptMasking::kNever)));

}  // namespace
}  // namespace vmbfs::hyperv
