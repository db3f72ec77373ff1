// A link server whose VMM is slow, or never answers: no other VM notices, and
// the next VMM finds the link as it should be.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/link_relay.h"
#include "hyperv/guest/link_test_fixture.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {
namespace {

class SlowVmmTest : public LinkServerFixture {
 protected:
  // A second VM, served on the same thread.
  SlowVmmTest() {
    OnStrand([this] {
      neighbour_server_ = std::make_unique<LinkServer>(context_.get_executor());
      LinkOptions options;
      options.socket_path = neighbour_path_;
      ASSERT_TRUE(neighbour_server_->Listen(options).ok());
      ASSERT_TRUE(neighbour_server_->Add(second_).ok());
      neighbour_server_->Start();
    });
  }
  ~SlowVmmTest() override {
    OnStrand([this] {
      neighbour_server_->Stop();
      neighbour_server_.reset();
    });
  }

  GuestOptions ThroughRelay(GuestLink link) const {
    GuestOptions options = OptionsOf(link, GuestProfile::kLinux);
    options.socket_path = relay_path_;
    return options;
  }

  void ExpectNeighbourServed() {
    GuestOptions options = OptionsOf(GuestLink::kDirect, GuestProfile::kLinux);
    options.socket_path = neighbour_path_;
    const std::unique_ptr<Guest> guest = Connected(options);
    ASSERT_NE(guest, nullptr);
    ExpectEcho(*Opened(*guest, kSecondInstance), 1000);
  }

  const std::string relay_path_ = folder_ + "/relay.sock";
  const std::string neighbour_path_ = folder_ + "/next.sock";
  std::unique_ptr<LinkServer> neighbour_server_;
};

// The server's request that a VMM of this form leaves unanswered.
struct Mute {
  GuestLink link{};
  LinkType type{};
  const char* name = "";
};

class MuteVmmTest : public SlowVmmTest, public testing::WithParamInterface<Mute> {};
INSTANTIATE_TEST_SUITE_P(
    Requests, MuteVmmTest,
    testing::Values(Mute{GuestLink::kDirect, LinkType::kSintGet, "SintGet"},
                    Mute{GuestLink::kDirect, LinkType::kConnSet, "ConnSet"},
                    Mute{GuestLink::kMediated, LinkType::kMsgSend, "MsgSend"},
                    Mute{GuestLink::kMediated, LinkType::kEventGet, "EventGet"},
                    Mute{GuestLink::kMediated, LinkType::kConnSet, "MediatedConnSet"},
                    Mute{GuestLink::kChannel, LinkType::kOffer, "Offer"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(MuteVmmTest, UnansweredRequestHoldsUpItsOwnGuestAlone) {
  std::atomic<int> kept = 0;
  {
    LinkRelay relay(relay_path_, path_, [&](const GuestLinkFrame& frame, const auto&) {
      if (frame.type != GetParam().type) return true;
      ++kept;
      return false;
    });
    GuestOptions options = ThroughRelay(GetParam().link);
    options.timeout = std::chrono::seconds(5);
    const std::unique_ptr<Guest> guest = Started(options);
    ASSERT_NE(guest, nullptr);
    const absl::Status connected = guest->Connect();
    absl::Status opened = connected;
    if (connected.ok()) {
      const absl::StatusOr<GuestOffer> offer = guest->WaitForOffer(kEchoInterface, kFirstInstance);
      opened = offer.ok() ? guest->Open(*offer).status() : offer.status();
    }
    EXPECT_EQ(opened.code(), absl::StatusCode::kDeadlineExceeded) << opened;
    EXPECT_GE(kept, 1);
    ExpectNeighbourServed();
  }
  EXPECT_EQ(first_->opens, first_->closes);
  ExpectEcho(*Opened(*Connected(OptionsOf(GetParam().link, GuestProfile::kLinux))), 1000);
}

// The device is free at once, whatever the VMM says.
TEST_F(SlowVmmTest, UnansweredRevokeTakesTheDeviceFromTheGuest) {
  LinkRelay relay(relay_path_, path_, [](const GuestLinkFrame& frame, const auto&) {
    return frame.type != LinkType::kRevoke;
  });
  const std::unique_ptr<Guest> guest = Connected(ThroughRelay(GuestLink::kChannel));
  const std::unique_ptr<GuestChannel> channel = Opened(*guest);
  ExpectEcho(*channel, 100);
  OnStrand([&] { server_->Remove(*first_); });
  EXPECT_EQ(first_->closes, 1);
  ExpectNeighbourServed();
}

// Answers a MSG_SEND in the VMM's place.
void AnswerMsgSend(const GuestLinkFrame& frame, LinkMsgResult result,
                   const LinkRelay::SendFrame& to_server) {
  LinkMsgSendResultWire answer{};
  answer.result = static_cast<uint32_t>(result);
  to_server(LinkType::kMsgSend, kLinkFlagReply, frame.seq, PayloadBytes(answer));
}

TEST_F(SlowVmmTest, MessagesThatAreBusyForAWhileComeInOrderAndOnce) {
  constexpr int kBusyEach = 3;
  for (LinkMsgResult result : {LinkMsgResult::kBusy, LinkMsgResult::kNoMessagePage}) {
    std::map<std::vector<std::byte>, int> tries;  // by message
    std::atomic<int> refused = 0;
    uint64_t seq = 1 << 20;
    LinkRelay relay(relay_path_, path_, [&](const GuestLinkFrame& frame, const auto& to_server) {
      const auto message = ParsePayload<LinkMsgSendWire>(frame.payload);
      if (frame.type != LinkType::kMsgSend || !message) return true;
      const auto payload = PayloadBytes(message->payload);
      if (++tries[{payload.begin(), payload.end()}] > kBusyEach) return true;
      ++refused;
      AnswerMsgSend(frame, result, to_server);
      LinkSintWire eom{};
      eom.sint = kSynicVmbusSint;
      to_server(LinkType::kEom, 0, seq++, PayloadBytes(eom));
      return false;
    });
    {
      const std::unique_ptr<Guest> guest = Connected(ThroughRelay(GuestLink::kMediated));
      ASSERT_NE(guest, nullptr);
      EXPECT_EQ(guest->offers().size(), 1u);
      const std::unique_ptr<GuestChannel> channel = Opened(*guest);
      ExpectEcho(*channel, 1000);
    }
    // VersionResponse, OfferChannel, AllOffersDelivered, GpadlCreated, OpenResult.
    EXPECT_EQ(refused, 5 * kBusyEach);
  }
}

// A refused message waits for EOM; without one it comes every 100 ms, in case
// that the guest emptied its slot silently.
TEST_F(SlowVmmTest, BusyMessageComesAgainTenTimesASecondAtMost) {
  constexpr std::chrono::milliseconds kAgain{100};
  std::atomic<int> sends = 0;
  LinkRelay relay(relay_path_, path_, [&](const GuestLinkFrame& frame, const auto& to_server) {
    if (frame.type != LinkType::kMsgSend) return true;
    ++sends;
    AnswerMsgSend(frame, LinkMsgResult::kBusy, to_server);
    return false;
  });
  GuestOptions options = ThroughRelay(GuestLink::kMediated);
  options.timeout = std::chrono::seconds(2);
  const auto start = std::chrono::steady_clock::now();
  const std::unique_ptr<Guest> guest = Started(options);
  ASSERT_NE(guest, nullptr);
  EXPECT_EQ(guest->Connect().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(sends, 1);
  EXPECT_LE(sends, (std::chrono::steady_clock::now() - start) / kAgain + 2);
}

}  // namespace
}  // namespace vmbfs::hyperv
