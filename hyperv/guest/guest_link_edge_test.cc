// A whole guest against a whole link server: several processors, and a guest
// that breaks the rules.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/link_test_fixture.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

class GuestLinkEdgeTest : public LinkTest {
 protected:
  // The channel is faulted, with a reason, and its guest waits in vain.
  void ExpectFault(Guest& guest, std::unique_ptr<GuestChannel> channel, int faults) {
    std::string fault;
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (fault.empty() && std::chrono::steady_clock::now() < give_up) {
      OnStrand([&] {
        const LinkStatus status = server_->status();
        fault = status.channels.front().fault;
        EXPECT_LE(status.channels.front().faults, static_cast<uint64_t>(faults));
      });
    }
    EXPECT_FALSE(fault.empty());
    EXPECT_TRUE(guest.Close(std::move(channel)).ok());
  }
};
INSTANTIATE_TEST_SUITE_P(Guests, GuestLinkEdgeTest, testing::ValuesIn(AllLinkTestParameters()),
                         LinkTestName);

TEST_P(GuestLinkEdgeTest, HostMessagesAndSignalsComeToTheProcessorAskedFor) {
  GuestOptions options = Options();
  options.vp_count = 4;
  options.message_vp = 3;
  const std::unique_ptr<Guest> guest = Connected(options);
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  ExpectEcho(*channel, 100);
  // A signal may come late: the answer can be seen before it.
  while (!channel->last_signal_vp()) ASSERT_TRUE(channel->Wait().ok());
  EXPECT_EQ(channel->last_signal_vp(), 3u);
}

TEST_P(GuestLinkEdgeTest, Version2_4SendsHostMessagesToProcessor0) {
  GuestOptions options = Options();
  options.vp_count = 2;
  options.message_vp = 1;
  options.versions = {kVersion2_4};
  // The guest looks at all its slots, so that it hears them there too.
  const std::unique_ptr<Guest> guest = Connected(options);
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkEdgeTest, ModifyChannelMovesSignals) {
  for (uint32_t version : {kVersion4_1, kVersion5_3, kVersion6_0}) {
    SCOPED_TRACE(version);
    GuestOptions options = Options();
    options.vp_count = 2;
    options.versions = {version};
    const std::unique_ptr<Guest> guest = Connected(options);
    const std::unique_ptr<GuestChannel> channel = Opened(*guest);
    const uint32_t channel_id = channel->offer().channel_id;
    ExpectEcho(*channel, 100);
    ASSERT_TRUE(guest->ModifyChannel(channel_id, 1).ok());
    // Below 5.3 there is no answer: later signals move when the server did.
    for (int exchange = 0; channel->last_signal_vp() != 1u && exchange < 10'000; ++exchange) {
      ExpectEcho(*channel, 100);
    }
    EXPECT_EQ(channel->last_signal_vp(), 1u);
    if (version >= kVersion5_3) {
      EXPECT_EQ(guest->ModifyChannel(channel_id, 0xFFFFFFFF).code(),
                absl::StatusCode::kFailedPrecondition);
      EXPECT_EQ(guest->ModifyChannel(77, 1).code(), absl::StatusCode::kFailedPrecondition);
    }
    ExpectEcho(*channel, 100);
  }
}

TEST_P(GuestLinkEdgeTest, ModifyChannelBelow4_1IsNotPossible) {
  GuestOptions options = Options();
  options.versions = {kVersion4_0};
  const std::unique_ptr<Guest> guest = Connected(options);
  EXPECT_EQ(guest->ModifyChannel(1, 0).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(GuestLinkEdgeTest, MessagesWaitInOrderForAGuestThatTakesNoneForAWhile) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  std::vector<Guid> instances;
  for (uint8_t number = 1; number <= 8; ++number) {
    instances.push_back(kSecondInstance);
    instances.back().bytes[15] = std::byte{number};
    OnStrand(
        [&] { ASSERT_TRUE(server_->Add(std::make_shared<EchoDevice>(instances.back())).ok()); });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  ASSERT_TRUE(guest->WaitForOffer(kEchoInterface, instances.back()).ok());
  ASSERT_EQ(guest->offers().size(), 1 + instances.size());
  for (size_t index = 0; index < instances.size(); ++index) {
    EXPECT_EQ(guest->offers()[1 + index].instance_id, instances[index]) << index;
  }
}

TEST_P(GuestLinkEdgeTest, MalformedPostsAreDroppedAndTheConnectionLives) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  EXPECT_EQ(guest->PostRaw(2, Pattern(8, 0)), 0x12u);
  EXPECT_EQ(guest->PostRaw(1, Pattern(241, 0)), 5u);
  int accepted = 0;
  for (size_t bytes = 0; bytes <= 240; ++bytes) {
    // Type 0x00...: none that a guest may send; every status but 0 is a retry.
    std::vector<std::byte> message = Pattern(bytes, 3);
    if (bytes > 3) message[3] = std::byte{0xFF};
    uint32_t status = 0x13;
    while (status == 0x13) status = guest->PostRaw(bytes % 2 == 0 ? 1 : 4, message);
    EXPECT_EQ(status, 0u);
    ++accepted;
  }
  EXPECT_EQ(accepted, 241);
  ExpectEcho(*channel, 100);
}

TEST_P(GuestLinkEdgeTest, BrokenWriteIndexFaultsTheChannelAloneAndItOpensAgain) {
  OnStrand([&] { ASSERT_TRUE(server_->Add(second_).ok()); });
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> other = Opened(*guest, kSecondInstance);
  int faults = 0;
  for (uint32_t index : {4u, 0x10000000u, 0xFFFFFFF8u}) {
    SCOPED_TRACE(index);
    std::unique_ptr<GuestChannel> channel = Opened(*guest);
    ExpectEcho(*channel, 100);
    const std::vector<std::span<std::byte>> pages = guest->RingPages(*channel);
    std::copy_n(std::as_bytes(std::span(&index, 1)).begin(), 4, pages[0].begin());
    channel->pipe().channel().SignalPeer();
    ExpectFault(*guest, std::move(channel), ++faults);
    ExpectEcho(*other, 100);
  }
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkEdgeTest, RandomRingBytesFaultTheChannelAtMost) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  for (size_t seed = 0; seed < 8; ++seed) {
    std::unique_ptr<GuestChannel> channel = Opened(*guest);
    const std::vector<std::span<std::byte>> pages = guest->RingPages(*channel);
    for (size_t page = 0; page < pages.size() / 2; ++page) {
      const std::vector<std::byte> junk = Pattern(pages[page].size(), seed + page);
      std::copy(junk.begin(), junk.end(), pages[page].begin());
    }
    channel->pipe().channel().SignalPeer();
    EXPECT_TRUE(guest->Close(std::move(channel)).ok());
  }
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkEdgeTest, RingPagesLieInRamAndAreContiguousForTheFirmwareOnly) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  const std::vector<std::span<std::byte>> pages = guest->RingPages(*channel);
  const std::span<std::byte> ram = guest->ram();
  for (std::span<std::byte> page : pages) {
    EXPECT_GE(page.data(), ram.data());
    EXPECT_LE(page.data() + page.size(), ram.data() + ram.size());
  }
  const bool firmware = Profile() == GuestProfile::kFirmware;
  EXPECT_EQ(pages.size(), firmware ? 10u : 34u);
  EXPECT_EQ(guest->RingBytes(*channel).size(), firmware ? 10 * 4096u : 0u);
  EXPECT_EQ(pages[1].data() == pages[0].data() + 4096, firmware);
}

TEST_P(GuestLinkEdgeTest, WaitEndsAtTheTimeout) {
  GuestOptions options = Options();
  options.timeout = std::chrono::milliseconds(500);
  const std::unique_ptr<Guest> guest = Connected(options);
  EXPECT_EQ(guest->WaitForRescind(1).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(guest->WaitForOffer(kEchoInterface, kSecondInstance).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_P(GuestLinkEdgeTest, DeadlineEndsWaitsBeforeTheTimeout) {
  GuestOptions options = Options();
  options.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  const std::unique_ptr<Guest> guest = Connected(options);
  EXPECT_EQ(guest->WaitForRescind(1).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(std::chrono::steady_clock::now(), options.deadline);
  EXPECT_LT(std::chrono::steady_clock::now(), options.deadline + std::chrono::seconds(20));
}

TEST_P(GuestLinkEdgeTest, BadOptionsAreRefused) {
  GuestOptions options = Options();
  options.vp_count = 0;
  EXPECT_EQ(Guest::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.vp_count = 2;
  options.message_vp = 2;
  EXPECT_EQ(Guest::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.message_vp = 0;
  options.ram_bytes = 100;
  EXPECT_EQ(Guest::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmbfs::hyperv
