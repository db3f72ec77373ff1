// Long random lives of a bus: valid and mangled messages, offers, revokes,
// resets, and devices that answer late and in any order. A model of the device
// side checks every call of the bus, and that nothing reaches a guest that
// pauses or disconnects; afterwards a fresh guest is always served.

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "hyperv/bus/bus_test_fixture.h"
#include "hyperv/gpadl/gpadl_table.h"

namespace vmbfs::hyperv {
namespace {

// Devices that answer when told to, each in the order it was asked.
class ModelPort final : public BusPort {
 public:
  struct Question {
    enum Kind { kOpen, kClose, kModify } kind;
  };
  struct Signals {
    uint32_t connection_id;
    uint16_t event_flag;
  };

  void SendMessage(uint32_t, uint8_t sint, std::span<const std::byte> message) override {
    ASSERT_GE(message.size(), 8u);
    ASSERT_LE(sint, 15);
    const uint64_t type = NumberAt(message, 0, 4);
    ++sent_by_type[type];
    if (type == 17) ExpectNothingInUse();
    if (type == 15 && message[8] == std::byte{1}) ExpectNothingInUse();
    const bool ends_connection = type == 17 || (type == 15 && sint == 2);
    if (ends_connection) paused = disconnecting = false;
    EXPECT_FALSE(paused && sint == 2) << "type " << type << " to a guest that pauses";
    EXPECT_FALSE(disconnecting && sint == 2) << "type " << type << " while disconnecting";
    if (type == 28) paused = true;
  }
  void OpenChannel(const OpenRequest& request) override {
    EXPECT_TRUE(live.contains(request.offer));
    EXPECT_TRUE(request.connection_id != 0 && request.connection_id < 1u << 24);
    EXPECT_LT(request.event_flag, 2048);
    for (const auto& [other, signals] : in_use) {
      EXPECT_NE(signals.connection_id, request.connection_id);
      EXPECT_NE(signals.event_flag, request.event_flag);
    }
    const Signals signals{request.connection_id, request.event_flag};
    EXPECT_TRUE(in_use.emplace(request.offer, signals).second) << "opened twice";
    ++opens;
    if (request.event_flag != request.channel_id) ++opened_with_guest_signals;
    EXPECT_GE(request.incoming_page_frames.size(), 2u);
    EXPECT_GE(request.outgoing_page_frames.size(), 2u);
    questions[request.offer].push_back({Question::kOpen});
  }
  void CloseChannel(OfferId offer) override {
    EXPECT_TRUE(in_use.contains(offer)) << "closed without being open";
    EXPECT_TRUE(closing.insert(offer).second) << "closed twice";
    questions[offer].push_back({Question::kClose});
  }
  void ModifyChannel(OfferId offer, uint32_t) override {
    EXPECT_TRUE(in_use.contains(offer) && !closing.contains(offer));
    questions[offer].push_back({Question::kModify});
  }
  void OfferReleased(OfferId offer) override {
    EXPECT_EQ(live.erase(offer), 1u) << "released twice";
    EXPECT_TRUE(revoked.contains(offer));
    EXPECT_FALSE(in_use.contains(offer)) << "released while in use";
  }
  void DropQueuedMessages() override { paused = false; }

  void ExpectNothingInUse() const { EXPECT_TRUE(in_use.empty()) << "a ring is still in use"; }

  std::map<uint64_t, uint64_t> sent_by_type;
  uint64_t opens = 0;
  uint64_t opened_with_guest_signals = 0;
  bool paused = false;                // from PauseResponse to Resume or the end
  bool disconnecting = false;         // since an earlier step
  std::set<OfferId> live;             // offered and not released
  std::set<OfferId> revoked;          // of all times
  std::map<OfferId, Signals> in_use;  // from OpenChannel to a refusal or CloseDone
  std::set<OfferId> closing;
  std::map<OfferId, std::deque<Question>> questions;
};

class BusRandomTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static constexpr uint32_t kInstances = 4;

  uint32_t Pick(uint32_t count) { return static_cast<uint32_t>(random_() % count); }

  static ChannelOffer OfferOf(uint32_t instance) {
    ChannelOffer offer;
    offer.instance_id.bytes[0] = static_cast<std::byte>(instance);
    return offer;
  }

  void AnswerOne() {
    if (port_.questions.empty()) return;
    auto asked = port_.questions.begin();
    std::advance(asked, Pick(static_cast<uint32_t>(port_.questions.size())));
    const OfferId offer = asked->first;
    const auto kind = asked->second.front().kind;
    asked->second.pop_front();
    if (asked->second.empty()) port_.questions.erase(asked);
    switch (kind) {
      case ModelPort::Question::kOpen: {
        const bool refused = Pick(4) == 0;
        // A refusing device that is not closing yet has let go by itself.
        if (refused && !port_.closing.contains(offer)) port_.in_use.erase(offer);
        bus_.OpenDone(offer, refused ? absl::InternalError("no") : absl::OkStatus());
        return;
      }
      case ModelPort::Question::kClose:
        port_.in_use.erase(offer);
        port_.closing.erase(offer);
        bus_.CloseDone(offer);
        return;
      case ModelPort::Question::kModify:
        bus_.ModifyDone(offer, Pick(4) == 0 ? absl::InternalError("no") : absl::OkStatus());
        return;
    }
  }

  void OfferOne() {
    const auto offered = bus_.Offer(OfferOf(Pick(kInstances)));
    if (offered.ok()) port_.live.insert(*offered);
  }

  void RevokeOne() {
    std::vector<OfferId> candidates;
    for (const OfferId offer : port_.live) {
      if (!port_.revoked.contains(offer)) candidates.push_back(offer);
    }
    if (candidates.empty()) return;
    const OfferId offer = candidates[Pick(static_cast<uint32_t>(candidates.size()))];
    port_.revoked.insert(offer);
    bus_.Revoke(offer);
  }

  // Mostly a channel that the guest has, so that lives go deep.
  BusChannelStatus PickChannel() {
    const std::vector<BusChannelStatus> channels = bus_.channels();
    BusChannelStatus picked;
    if (!channels.empty() && Pick(8) != 0) {
      picked = channels[Pick(static_cast<uint32_t>(channels.size()))];
    }
    if (picked.channel_id == 0) picked.channel_id = Pick(kInstances + 2);
    return picked;
  }

  std::vector<std::byte> ContactMessage() {
    static constexpr uint32_t kVersions[] = {0x00060000, 0x00050003, 0x00040001, 0x00020004, 7};
    const uint32_t version = Pick(2) == 0 ? 0x00060000 : kVersions[Pick(5)];
    return MessageBytes(14, 56).U32(8, version).U32(20, Pick(256)).bytes();
  }

  // A ring of 4 to 28 pages; the longest needs a body.
  std::vector<std::byte> GpadlMessage(uint32_t channel_id, uint32_t gpadl_id) {
    const auto pages = static_cast<uint16_t>(4 * (1 + Pick(7)));
    MessageBytes message = MessageBytes(8, 240).U32(8, channel_id).U32(12, gpadl_id);
    message.U16(16, static_cast<uint16_t>(8 * (pages + 1))).U16(18, 1);
    return message.U32(20, 4096u * pages).bytes();
  }

  std::vector<std::byte> OpenMessage(uint32_t channel_id, uint32_t gpadl_id) {
    static constexpr uint32_t kConnections[] = {0, 4, 0x2001, 0x2002, 0x5000, 0xFFFFFF, 0x1000000};
    static constexpr uint16_t kEventFlags[] = {0, 1, 2, 60, 2047, 2048};
    MessageBytes open = MessageBytes(5, 156).U32(8, channel_id).U32(16, gpadl_id).U32(24, 2);
    return open.U32(148, kConnections[Pick(7)]).U16(152, kEventFlags[Pick(6)]).bytes();
  }

  std::vector<std::byte> ValidMessage() {
    const BusStatus status = bus_.status();
    if (status.state == "disconnected" && Pick(4) != 0) return ContactMessage();
    if (status.state == "connected" && !status.offers_requested && Pick(4) != 0) {
      return MessageBytes(3, 8).bytes();
    }
    const BusChannelStatus picked = PickChannel();
    const uint32_t channel = picked.channel_id;
    const uint32_t gpadl = Pick(2);
    if (picked.state == "revoked" && Pick(2) == 0) {
      return MessageBytes(13, 12).U32(8, channel).bytes();
    }
    if (picked.state == "closed" && picked.gpadl_count == 0 && Pick(2) == 0) {
      return GpadlMessage(channel, gpadl);
    }
    switch (Pick(64)) {
      case 0:
        return ContactMessage();
      case 1:
        return MessageBytes(16, 8).bytes();
      case 2:
        return MessageBytes(3, 8).bytes();
      case 3:
        return MessageBytes(13, 12).U32(8, channel).bytes();
      case 4:
        return MessageBytes(18, 28).U32(8, channel).U32(16, 2).bytes();
      case 5:
        return MessageBytes(25, 24).U64(8, Pick(3)).U64(16, Pick(3)).bytes();
      case 6:
        return MessageBytes(27, 8).bytes();
      case 7:
      case 8:
        return MessageBytes(29, 8).bytes();
      default:
        break;
    }
    switch (Pick(7)) {
      case 0:
        return MessageBytes(7, 12).U32(8, channel).bytes();
      case 1:
        return MessageBytes(22, 16).U32(8, channel).U32(12, Pick(3)).bytes();
      case 2:
        return MessageBytes(11, 16).U32(8, channel).U32(12, gpadl).bytes();
      case 3:
        return MessageBytes(9, 240).U32(12, gpadl).bytes();
      case 4:
        return GpadlMessage(channel, gpadl);
      default:
        return OpenMessage(channel, gpadl);
    }
  }

  void PostOne() {
    std::vector<std::byte> message = ValidMessage();
    if (Pick(8) == 0) message.resize(Pick(242));
    for (uint32_t flips = Pick(8) == 0 ? 1 + Pick(4) : 0; flips > 0 && !message.empty(); --flips) {
      message[Pick(static_cast<uint32_t>(message.size()))] ^= static_cast<std::byte>(1u << Pick(8));
    }
    const uint32_t connection = Pick(16) == 0 ? Pick(6) : 1;
    const bool resumes = message.size() >= 8 && NumberAt(message, 0, 4) == 29;
    if (resumes && (connection == 1 || connection == 4)) port_.paused = false;
    bus_.HandleMessage(connection, message);
  }

  void Step() {
    switch (Pick(16)) {
      case 0:
        OfferOne();
        break;
      case 1:
        if (Pick(3) == 0) RevokeOne();
        break;
      case 2:
        if (Pick(30) == 0) bus_.Reset();
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        AnswerOne();
        break;
      default:
        PostOne();
    }
  }

  void CheckBounds() {
    const BusStatus status = bus_.status();
    EXPECT_LE(status.gpadl_count, GpadlTable::kGpadlsMax);
    EXPECT_LE(status.gpadl_pages, GpadlTable::kPageFramesMax);
    EXPECT_LE(status.last_drop_reason.size(), 200u);
    EXPECT_LE(status.messages_held, status.paused ? 3 * kInstances : 0);
    EXPECT_TRUE(!status.paused || port_.paused);
    port_.disconnecting = status.state == "disconnecting";
    held_max_ = std::max(held_max_, status.messages_held);
    EXPECT_EQ(bus_.channels().size(), port_.live.size());
    for (const BusChannelStatus& each : bus_.channels()) {
      EXPECT_TRUE(port_.live.contains(each.offer));
      EXPECT_EQ(!bus_.RingPageFrames(each.offer).empty(), port_.in_use.contains(each.offer))
          << each.state;
    }
  }

  // A fresh guest connects and opens every channel there is.
  void ExpectFreshGuestIsServed() {
    bus_.HandleMessage(1, MessageBytes(14, 40).U32(8, 0x00060000));
    while (!port_.questions.empty()) AnswerOne();
    ASSERT_EQ(bus_.status().state, "connected");
    EXPECT_EQ(bus_.status().gpadl_count, 0u);
    bus_.HandleMessage(1, MessageBytes(3, 8));
    for (const BusChannelStatus& each : bus_.channels()) {
      EXPECT_EQ(each.state, "closed");
      MessageBytes header = MessageBytes(8, 240).U32(8, each.channel_id).U32(12, 1);
      bus_.HandleMessage(1, header.U16(16, 88).U16(18, 1).U32(20, 0xA000));
      bus_.HandleMessage(1, MessageBytes(5, 156).U32(8, each.channel_id).U32(16, 1).U32(24, 5));
      port_.questions.erase(each.offer);
      bus_.OpenDone(each.offer, absl::OkStatus());
    }
    for (const BusChannelStatus& each : bus_.channels()) EXPECT_EQ(each.state, "open");
    bus_.HandleMessage(1, MessageBytes(16, 8));
    while (!port_.questions.empty()) AnswerOne();
    EXPECT_EQ(bus_.status().state, "disconnected");
  }

  std::mt19937 random_{GetParam()};
  size_t held_max_ = 0;
  ModelPort port_;
  Bus bus_{port_};
};

TEST_P(BusRandomTest, AnyLifeEndsWithAFreshGuestServed) {
  for (int life = 0; life < 40; ++life) {
    for (int step = 0; step < 500; ++step) {
      Step();
      CheckBounds();
      if (HasFailure()) FAIL() << "seed " << GetParam() << " life " << life << " step " << step;
    }
    ExpectFreshGuestIsServed();
  }
  // The lives were worth living: every answer and every way out was seen.
  for (const uint64_t type : {1, 2, 4, 6, 10, 12, 15, 17, 24, 26, 28}) {
    EXPECT_GT(port_.sent_by_type[type], 0u) << type;
  }
  EXPECT_GT(port_.opens, 200u);
  EXPECT_GT(port_.opened_with_guest_signals, 10u);
  EXPECT_GT(held_max_, 2u);
  EXPECT_GT(port_.revoked.size(), 10u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, BusRandomTest, ::testing::Range(1u, 11u));

}  // namespace
}  // namespace vmbfs::hyperv
