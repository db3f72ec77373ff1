// A whole guest against a whole link server: connection and channels, as both
// known guests use them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/link_test_fixture.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

class GuestLinkTest : public LinkTest {};
INSTANTIATE_TEST_SUITE_P(Guests, GuestLinkTest, testing::ValuesIn(AllLinkTestParameters()),
                         LinkTestName);

TEST_P(GuestLinkTest, ConnectNegotiatesTheNewestVersionAndDeliversTheOffer) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  EXPECT_EQ(guest->version(), "6.0");
  ASSERT_EQ(guest->offers().size(), 1u);
  const GuestOffer& offer = guest->offers().front();
  EXPECT_EQ(offer.channel_id, 1u);
  EXPECT_EQ(offer.interface_id, kEchoInterface);
  EXPECT_EQ(offer.instance_id, kFirstInstance);
  EXPECT_EQ(offer.flags, kOfferFlagNamedPipe);
  EXPECT_EQ(offer.pipe_type, 4u);
}

TEST_P(GuestLinkTest, MessagesOfAllSizesUpToTheLargestComeBack) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  const size_t largest = channel->pipe().max_message_bytes();
  // In the firmware's rings a packet stays below the data area's 16,384 - 8.
  EXPECT_EQ(largest, Profile() == GuestProfile::kFirmware ? 16336u : 16384u);
  for (size_t bytes = 0; bytes < 64; ++bytes) ExpectEcho(*channel, bytes, bytes);
  for (size_t bytes = 64; bytes < largest; bytes += 509) ExpectEcho(*channel, bytes, bytes);
  for (size_t back = 0; back < 9; ++back) ExpectEcho(*channel, largest - back, back);
  std::vector<std::byte> buffer(16384);
  EXPECT_EQ(channel->Exchange(Pattern(largest + 1, 0), buffer).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Both rings fill up: each side waits for the other's space.
TEST_P(GuestLinkTest, MessagesQueuedUntilBothRingsAreFullComeBackInOrder) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  constexpr size_t kMessages = 600;
  constexpr size_t kBytes = 3000;
  std::vector<std::byte> buffer(16384);
  size_t sent = 0;
  size_t received = 0;
  bool filled = false;
  while (received < kMessages) {
    while (sent < kMessages) {
      absl::StatusOr<bool> written = channel->pipe().Write(Pattern(kBytes + sent % 1000, sent));
      ASSERT_TRUE(written.ok()) << written.status();
      if (!*written) break;
      ++sent;
    }
    if (sent < kMessages) {
      filled = true;
      absl::StatusOr<bool> room = channel->pipe().ArmWrite(kBytes + sent % 1000);
      ASSERT_TRUE(room.ok()) << room.status();
    }
    absl::StatusOr<std::optional<std::span<std::byte>>> answer = channel->pipe().Read(buffer);
    ASSERT_TRUE(answer.ok()) << answer.status();
    if (*answer) {
      ASSERT_EQ(std::vector<std::byte>((*answer)->begin(), (*answer)->end()),
                Pattern(kBytes + received % 1000, received));
      channel->pipe().Consume();
      ++received;
    } else {
      absl::StatusOr<bool> arrived = channel->pipe().ArmRead();
      ASSERT_TRUE(arrived.ok()) << arrived.status();
      if (!*arrived) {
        ASSERT_TRUE(channel->Wait().ok());
      }
    }
    channel->pipe().DisarmWrite();
  }
  EXPECT_TRUE(filled);
}

TEST_P(GuestLinkTest, ManyExchangesWithSleepsBetweenNeverStall) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  for (size_t exchange = 0; exchange < 1000; ++exchange) {
    ExpectEcho(*channel, exchange * 97 % 12288, exchange);
    if (exchange % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(channel->last_signal_vp().has_value());
}

TEST_P(GuestLinkTest, ClosedChannelOpensAgainAndAgain) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  for (int round = 1; round <= 10; ++round) {
    std::unique_ptr<GuestChannel> channel = Opened(*guest);
    EXPECT_EQ(first_->opens, round);
    ExpectEcho(*channel, 100);
    ASSERT_TRUE(guest->Close(std::move(channel)).ok());
    // Torndown came, so the device has let go.
    EXPECT_EQ(first_->closes, round);
  }
}

TEST_P(GuestLinkTest, TwoChannelsServeSideBySide) {
  OnStrand([&] { ASSERT_TRUE(server_->Add(second_).ok()); });
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> first = Opened(*guest, kFirstInstance);
  const std::unique_ptr<GuestChannel> second = Opened(*guest, kSecondInstance);
  EXPECT_NE(first->offer().channel_id, second->offer().channel_id);
  for (size_t exchange = 0; exchange < 20; ++exchange) {
    ExpectEcho(*first, 1000, exchange);
    ExpectEcho(*second, 2000, exchange);
  }
}

TEST_P(GuestLinkTest, DeviceAddedLaterIsOfferedAtOnce) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  OnStrand([&] { ASSERT_TRUE(server_->Add(second_).ok()); });
  const std::unique_ptr<GuestChannel> second = Opened(*guest, kSecondInstance);
  ExpectEcho(*second, 100);
}

TEST_P(GuestLinkTest, UnloadClosesEverythingAndConnectBringsTheSameChannelBack) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  std::unique_ptr<GuestChannel> channel = Opened(*guest);
  ExpectEcho(*channel, 100);
  ASSERT_TRUE(guest->Unload().ok());
  EXPECT_EQ(first_->closes, 1);
  EXPECT_TRUE(guest->offers().empty());
  EXPECT_EQ(guest->version(), "");
  EXPECT_EQ(channel->Wait().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(guest->Close(std::move(channel)).ok());
  EXPECT_FALSE(guest->Unload().ok());

  ASSERT_TRUE(guest->Connect().ok());
  channel = Opened(*guest);
  EXPECT_EQ(channel->offer().channel_id, 1u);
  ExpectEcho(*channel, 100);
}

TEST_P(GuestLinkTest, ContactWhileConnectedStartsAfresh) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> old_channel = Opened(*guest);
  ASSERT_TRUE(guest->Connect().ok());
  EXPECT_EQ(first_->closes, 1);
  EXPECT_EQ(old_channel->Wait().code(), absl::StatusCode::kAborted);
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkTest, ResetClosesEverythingAndAFreshConnectWorks) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  std::unique_ptr<GuestChannel> channel = Opened(*guest);
  ASSERT_TRUE(guest->ResetVm().ok());
  EXPECT_EQ(first_->closes, 1);
  channel.reset();
  ASSERT_TRUE(guest->Connect().ok());
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkTest, NextGuestFindsTheLinkFreeAndItsDevicesClosed) {
  for (int round = 1; round <= 3; ++round) {
    const std::unique_ptr<Guest> guest = Connected(Options());
    const std::unique_ptr<GuestChannel> channel = Opened(*guest);
    ExpectEcho(*channel, 100);
    EXPECT_EQ(first_->opens, round);
    EXPECT_EQ(first_->closes, round - 1);
  }
}

TEST_P(GuestLinkTest, RevokedChannelAbortsWaitsAndComesBackAfterItsRelease) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  std::unique_ptr<GuestChannel> channel = Opened(*guest);
  const uint32_t channel_id = channel->offer().channel_id;
  OnStrand([&] { server_->Remove(*first_); });
  EXPECT_EQ(first_->closes, 1);
  ASSERT_TRUE(guest->WaitForRescind(channel_id).ok());
  EXPECT_TRUE(guest->offers().empty());
  EXPECT_EQ(channel->Wait().code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(guest->Close(std::move(channel)).ok());

  OnStrand([&] { ASSERT_TRUE(server_->Add(first_).ok()); });
  if (Profile() == GuestProfile::kLinux) {
    ASSERT_TRUE(guest->Release(channel_id).ok());
  } else {
    // The firmware keeps the id until it unloads.
    EXPECT_FALSE(guest->Release(channel_id).ok());
    ASSERT_TRUE(guest->Unload().ok());
    ASSERT_TRUE(guest->Connect().ok());
  }
  channel = Opened(*guest);
  EXPECT_EQ(channel->offer().channel_id, channel_id);
  ExpectEcho(*channel, 100);
}

TEST_P(GuestLinkTest, RefusedOpenIsReportedAndTheChannelOpensLater) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const GuestOffer offer = guest->offers().front();
  first_->refuse_opens = true;
  EXPECT_EQ(guest->Open(offer).status().code(), absl::StatusCode::kFailedPrecondition);
  OnStrand([&] { server_->SetOpenAllowed(*first_, false); });
  first_->refuse_opens = false;
  EXPECT_EQ(guest->Open(offer).status().code(), absl::StatusCode::kFailedPrecondition);
  OnStrand([&] { server_->SetOpenAllowed(*first_, true); });
  ExpectEcho(*Opened(*guest), 100);
}

TEST_P(GuestLinkTest, ServerThatStopsMakesCallsUnavailable) {
  const std::unique_ptr<Guest> guest = Connected(Options());
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  OnStrand([&] { server_->Stop(); });
  std::vector<std::byte> buffer(64);
  EXPECT_EQ(channel->Exchange(Pattern(8, 0), buffer).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(guest->Unload().code(), absl::StatusCode::kUnavailable);
}

class GuestVersionTest : public LinkTest {};
INSTANTIATE_TEST_SUITE_P(Guests, GuestVersionTest, testing::ValuesIn(AllLinkTestParameters()),
                         LinkTestName);

TEST_P(GuestVersionTest, EveryKnownVersionServes) {
  const std::map<uint32_t, std::string> versions = {
      {kVersion6_0, "6.0"}, {kVersion5_3, "5.3"}, {kVersion5_2, "5.2"},
      {kVersion5_1, "5.1"}, {kVersion5_0, "5.0"}, {kVersion4_1, "4.1"},
      {kVersion4_0, "4.0"}, {kVersion3_0, "3.0"}, {kVersion2_4, "2.4"}};
  for (const auto& [version, text] : versions) {
    SCOPED_TRACE(text);
    GuestOptions options = Options();
    options.versions = {version};
    const std::unique_ptr<Guest> guest = Connected(options);
    EXPECT_EQ(guest->version(), text);
    ExpectEcho(*Opened(*guest), 5000);
    EXPECT_TRUE(guest->Unload().ok());
  }
}

TEST_P(GuestVersionTest, RefusedVersionsFallThroughToASupportedOne) {
  GuestOptions options = Options();
  options.versions = {0x00070000, 0x00050004, kVersion4_0};
  EXPECT_EQ(Connected(options)->version(), "4.0");
}

TEST_P(GuestVersionTest, NoCommonVersionIsRefused) {
  GuestOptions options = Options();
  options.versions = {0x00060001};
  EXPECT_EQ(Started(options)->Connect().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace vmbfs::hyperv
