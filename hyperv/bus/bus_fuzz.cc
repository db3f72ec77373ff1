// A whole bus by sequences of what guest, host and devices may do: messages
// valid and mangled, offers, revokes, resets, and answers that come late and in
// any order. What the bus asks of its port and tells the guest is checked step by
// step, and after any life a fresh guest must be served from contact to unload.
//
// Input: actions, a byte each and what they need.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/bus/bus_fuzz_guest.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/gpadl/gpadl_table.h"
#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 400;
constexpr uint32_t kInstances = 4;
constexpr uint32_t kChannelIds = 8;  // more than are in use, for messages about none

enum class Question { kOpen, kClose, kModify };

// The devices' end: answers when told to, in the order of the questions.
class ModelPort final : public BusPort {
 public:
  void SendMessage(uint32_t, uint8_t sint, std::span<const std::byte> message) override {
    Require(sint <= 15, "a SINT is one of 16");
    guest.Told(sint, message);
    ++messages;
    const uint64_t type = NumberAt(message, 0, 4);
    const bool accepted = type == 15 && message[8] == std::byte{1};
    if (type == 17 || accepted) Require(in_use.empty(), "of the old connection nothing is in use");
  }

  void OpenChannel(const OpenRequest& request) override {
    Require(live.contains(request.offer), "only what is offered is opened");
    CheckSignals(request);
    CheckMonitor(request);
    const Signals signals{request.connection_id, request.event_flag};
    Require(in_use.emplace(request.offer, signals).second, "and not twice");
    Require(request.incoming_page_frames.size() >= 2 && request.outgoing_page_frames.size() >= 2,
            "rings have two pages at least");
    Require(guest.Holds(request.channel_id), "the channel is one that the guest was offered");
    questions[request.offer].push_back(Question::kOpen);
  }

  void CloseChannel(OfferId offer) override {
    Require(in_use.contains(offer), "only what was opened is closed");
    Require(closing.insert(offer).second, "and not twice");
    questions[offer].push_back(Question::kClose);
  }

  void ModifyChannel(OfferId offer, uint32_t target_vp) override {
    Require(in_use.contains(offer) && !closing.contains(offer), "only an open channel is modified");
    Require(target_vp != 0xFFFFFFFF, "to a processor that exists");
    questions[offer].push_back(Question::kModify);
  }

  void OfferReleased(OfferId offer) override {
    Require(revoked.contains(offer) && live.erase(offer) == 1, "a revoked offer is released once");
    Require(!in_use.contains(offer), "and not while its device is in use");
  }

  void DropQueuedMessages() override { Require(resetting, "only a reset drops messages"); }

  // Those that guest and host go by, and nobody else's.
  void CheckSignals(const OpenRequest& request) const {
    if (guest.chooses_signals()) {
      Require(guest.AskedFor(request.channel_id, request.connection_id, request.event_flag),
              "the signals are those that the guest asked for");
    } else {
      Require(request.connection_id == (0x2000 | request.channel_id) &&
                  request.event_flag == request.channel_id,
              "the signals are those of the offer");
    }
    Require(request.event_flag < 2048, "there are 2,048 event flags");
    Require(request.connection_id < 1 << 24 && request.connection_id != 0 &&
                request.connection_id != 1 && request.connection_id != 4,
            "a connection of events is none of messages");
    for (const auto& [other, signals] : in_use) {
      Require(signals.connection_id != request.connection_id &&
                  signals.event_flag != request.event_flag,
              "no two channels share a signal");
    }
  }

  // A page that the guest named, and a bit of it that is this channel's alone.
  void CheckMonitor(const OpenRequest& request) {
    monitors.erase(request.offer);
    if (!request.monitor.has_value()) return;
    const auto [guest_page_gpa, id] = *request.monitor;
    Require(guest_page_gpa == guest.monitor_page_gpa() && guest_page_gpa % 4096 == 0,
            "the page is the guest's, and a page");
    Require(guest.MonitorOf(request.channel_id) == id, "the monitor is that of the offer");
    for (const auto& [offer, signals] : in_use) {
      const auto other = monitors.find(offer);
      if (other == monitors.end()) continue;
      Require(other->second.id != id && other->second.guest_page_gpa == guest_page_gpa,
              "no two channels share a bit, and all are in one page");
    }
    monitors.emplace(request.offer, *request.monitor);
  }

  struct Signals {
    uint32_t connection_id;
    uint16_t event_flag;
  };

  GuestModel guest;
  std::set<OfferId> live;                      // offered and not released
  std::set<OfferId> revoked;                   // of all times
  std::map<OfferId, Signals> in_use;           // from OpenChannel to a refusal or CloseDone
  std::map<OfferId, MonitorTrigger> monitors;  // of their last opens
  std::set<OfferId> closing;
  std::map<OfferId, std::deque<Question>> questions;
  size_t messages = 0;
  bool resetting = false;
};

class BusFuzzer {
 public:
  explicit BusFuzzer(FuzzInput& input) : input_(input) {}

  void Run() {
    Offer(0);
    for (int step = 0; step < kStepsMax && !input_.empty(); ++step) {
      Step();
      CheckState();
    }
    ServeFreshGuest();
  }

 private:
  static constexpr std::array<uint32_t, 12> kVersions = {
      0x00060000, 0x00050003, 0x00050002, 0x00050001, 0x00050000, 0x00040001,
      0x00040000, 0x00030000, 0x00020004, 0x00010001, 0x0000000D, 7};

  void Step() {
    const uint32_t action = input_.Below(64);
    if (action < 4) return Offer(action);
    if (action < 6) return Revoke();
    if (action == 6) return Reset();
    if (action == 7) return AnswerUnasked();
    if (action < 24) return AnswerOne(/*refused=*/action == 8 || action == 9);
    PostOne(action);
  }

  // --- the host ---

  void Offer(uint32_t instance) {
    ChannelOffer offer;
    offer.instance_id.bytes[0] = static_cast<std::byte>(instance % kInstances);
    offer.monitored = instance % 2 == 1;
    const auto offered = bus_.Offer(offer);
    if (!offered.ok()) return;
    Require(!port_.live.contains(*offered) && !port_.revoked.contains(*offered),
            "an offer's id is never used again");
    port_.live.insert(*offered);
  }

  void Revoke() {
    std::vector<OfferId> candidates;
    std::ranges::set_difference(port_.live, port_.revoked, std::back_inserter(candidates));
    if (candidates.empty()) return;
    const OfferId offer = candidates[input_.Below(static_cast<uint32_t>(candidates.size()))];
    port_.revoked.insert(offer);
    bus_.Revoke(offer);
  }

  void Reset() {
    port_.resetting = true;
    bus_.Reset();
    port_.resetting = false;
    port_.guest.WasReset();
  }

  // --- the devices ---

  void AnswerOne(bool refused) {
    if (port_.questions.empty()) return;
    auto asked = port_.questions.begin();
    std::advance(asked, input_.Below(static_cast<uint32_t>(port_.questions.size())));
    const OfferId offer = asked->first;
    const Question question = asked->second.front();
    asked->second.pop_front();
    if (asked->second.empty()) port_.questions.erase(asked);
    const absl::Status result = refused ? absl::InternalError("no") : absl::OkStatus();
    switch (question) {
      case Question::kOpen:
        // A refusing device that is not closing yet has let go by itself.
        if (refused && !port_.closing.contains(offer)) port_.in_use.erase(offer);
        return bus_.OpenDone(offer, result);
      case Question::kClose:
        port_.in_use.erase(offer);
        port_.closing.erase(offer);
        return bus_.CloseDone(offer);
      case Question::kModify:
        return bus_.ModifyDone(offer, result);
    }
  }

  // An answer that nobody waits for changes nothing.
  void AnswerUnasked() {
    const OfferId offer{input_.U8() % 8u};
    if (port_.questions.contains(offer)) return;
    const size_t before = port_.messages;
    bus_.OpenDone(offer, absl::OkStatus());
    bus_.CloseDone(offer);
    bus_.ModifyDone(offer, absl::OkStatus());
    Require(port_.messages == before, "an answer that nobody waits for is ignored");
  }

  // --- the guest ---

  std::vector<std::byte> ValidMessage(uint32_t action) {
    const uint8_t ids = input_.U8();
    const uint32_t channel = ids % kChannelIds;
    const uint32_t gpadl = 1 + ids / 64u;
    switch (action) {
      case 24:
      case 25: {
        const uint32_t version = kVersions[input_.Below(16) % kVersions.size()];
        MessageBytes contact = MessageBytes(14, 56).U32(8, version);
        if ((ids & 0x10) != 0) contact.U64(24, 0x1000).U64(32, (ids & 0x20) != 0 ? 0x2008 : 0x2000);
        if (version < 0x00060000) return contact.bytes();
        return contact.U32(20, input_.U8()).bytes();
      }
      case 26:
      case 27:
      case 28:
        return MessageBytes(3, 8).bytes();
      case 29:
        return MessageBytes(16, 8).bytes();
      case 30:
      case 31:
      case 32:
        return MessageBytes(13, 12).U32(8, channel).bytes();
      case 33:
      case 34:
      case 35:
      case 36:
        return MessageBytes(7, 12).U32(8, channel).bytes();
      case 37:
      case 38:
        return MessageBytes(22, 16).U32(8, channel).U32(12, input_.U8() - 1u).bytes();
      case 39:
      case 40:
        return MessageBytes(11, 16).U32(8, channel).U32(12, gpadl).bytes();
      case 41:
        return MessageBytes(9, 240).U32(12, gpadl).bytes();
      case 42:
        return MessageBytes(18, 28).U32(8, channel).U32(16, 2).bytes();
      case 43:
        return MessageBytes(19, 20).U32(8, channel).bytes();
      case 44:
        return MessageBytes(21, 40).U32(8, ids).bytes();
      case 45:
        return MessageBytes(25, 24)
            .U64(8, input_.U8() % 4u * 0x1000)
            .U64(16, input_.U8() % 4u * 0x1000)
            .bytes();
      case 52:
        return MessageBytes(27, 8).bytes();
      case 53:
        return MessageBytes(29, 8).bytes();
      default:
        return action < 52 ? GpadlHeader(channel, gpadl) : OpenMessage(channel, gpadl);
    }
  }

  std::vector<std::byte> GpadlHeader(uint32_t channel, uint32_t gpadl) {
    // A ring of 4 pages and more; from 27 on it needs a body.
    const auto pages = static_cast<uint16_t>(4 + input_.U8() % 32u);
    MessageBytes message = MessageBytes(8, 240).U32(8, channel).U32(12, gpadl);
    message.U16(16, static_cast<uint16_t>(8 * (pages + 1))).U16(18, 1);
    return message.U32(20, 4096u * pages).bytes();
  }

  std::vector<std::byte> OpenMessage(uint32_t channel, uint32_t gpadl) {
    const uint8_t options = input_.U8();
    static constexpr std::array<uint32_t, 6> kOddConnections = {0, 1, 4, 0x2002, 0xFFFFFF, 1 << 24};
    const bool odd = options >= 200 && options < 240;
    MessageBytes message = MessageBytes(5, 156).U32(8, channel).U32(16, gpadl);
    message.U32(24, options < 240 ? 2 : options);
    message.U32(148, odd ? kOddConnections[options % 6u] : 0x2000 + channel);
    return message.U16(152, odd && options % 5 == 0 ? 2048 : options % 7u).bytes();
  }

  void PostOne(uint32_t action) {
    std::vector<std::byte> message = ValidMessage(action);
    const uint8_t mangling = input_.U8();
    if (mangling >= 240) message.resize(input_.U8());
    for (int flips = mangling % 64 < 4 ? mangling % 64 : 0; flips > 0 && !message.empty();
         --flips) {
      const size_t at = input_.U8() % message.size();
      message[at] ^= static_cast<std::byte>(1u << input_.Below(8));
    }
    Post(message, mangling == 100 ? input_.U8() : 1);
  }

  void Post(std::span<const std::byte> message, uint32_t connection = 1) {
    const size_t before = port_.messages;
    const size_t held = bus_.status().messages_held;
    const bool was_paused = port_.guest.paused();
    port_.guest.Posting(message, connection);
    bus_.HandleMessage(connection, message);
    const size_t sent = port_.messages - before;
    if (was_paused && !port_.guest.paused() && bus_.status().state == "connected" &&
        NumberAt(message, 0, 4) == 29) {
      Require(sent == held, "what was held while the guest paused comes, and nothing else");
      return;
    }
    const bool offers = message.size() >= 8 && NumberAt(message, 0, 4) == 3;
    Require(sent <= (offers ? 1 + port_.live.size() : 1), "one message for one, but for offers");
  }

  // --- after each step ---

  void CheckState() {
    const BusStatus status = bus_.status();
    Require(status.gpadl_count <= GpadlTable::kGpadlsMax &&
                status.gpadl_pages <= GpadlTable::kPageFramesMax,
            "GPADLs are bounded");
    Require(status.last_drop_reason.size() <= 200, "so is the reason of a drop");
    Require(status.messages_sent == port_.messages, "what is sent is counted");
    port_.guest.Look(status);
    const std::vector<BusChannelStatus> channels = bus_.channels();
    Require(channels.size() == port_.live.size(), "every offer until its release, and no other");
    for (const BusChannelStatus& each : channels) {
      Require(port_.live.contains(each.offer), "a channel is a live offer");
      Require(!bus_.RingPageFrames(each.offer).empty() == port_.in_use.contains(each.offer),
              "a ring is in use from the open to the close");
    }
  }

  // --- the end ---

  void AnswerAll() {
    while (!port_.questions.empty()) AnswerOne(/*refused=*/false);
  }

  void ServeFreshGuest() {
    Offer(0);
    const uint32_t version = kVersions[port_.messages % 9];
    // Signals of the guest's own, monitor pages, a client id, pauses: from 6.0 on.
    Post(MessageBytes(14, 56).U32(8, version).U32(20, version == 0x00060000 ? 0x2D : 0));
    AnswerAll();
    port_.guest.Look(bus_.status());
    Require(bus_.status().state == "connected", "a fresh contact is answered");
    Require(bus_.status().gpadl_count == 0, "nothing of the old connection is left");
    Post(MessageBytes(3, 8));
    const std::vector<BusChannelStatus> channels = bus_.channels();
    Require(!channels.empty(), "something is offered");
    for (const BusChannelStatus& each : channels) {
      Require(each.state == "closed" && port_.guest.Holds(each.channel_id), "all of it is offered");
      MessageBytes header = MessageBytes(8, 240).U32(8, each.channel_id).U32(12, each.channel_id);
      header.U16(16, 88).U16(18, 1).U32(20, 0xA000);
      for (uint32_t i = 0; i < 10; ++i) header.U64(28 + 8 * i, 0x1230 + i);
      Post(header);
      MessageBytes open = MessageBytes(5, 156).U32(8, each.channel_id).U32(16, each.channel_id);
      const auto flag = static_cast<uint16_t>(0x700 + each.channel_id);
      Post(open.U32(24, 5).U32(148, 0x300 + each.channel_id).U16(152, flag));
      const std::span<const uint64_t> frames = bus_.RingPageFrames(each.offer);
      Require(frames.size() == 10 && frames.front() == 0x1230 && frames.back() == 0x1239,
              "an open uses the pages of its GPADL");
      AnswerAll();
    }
    for (const BusChannelStatus& each : bus_.channels()) Require(each.state == "open", "all open");
    Post(MessageBytes(27, 8));
    Require(bus_.status().paused == (version == 0x00060000), "and pause");
    Post(MessageBytes(29, 8));
    Require(!bus_.status().paused, "and resume");
    Post(MessageBytes(16, 8));
    AnswerAll();
    Require(bus_.status().state == "disconnected" && port_.in_use.empty(), "and unloads");
    CheckState();
  }

  FuzzInput& input_;
  ModelPort port_;
  Bus bus_{port_};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  BusFuzzer(input).Run();
  return 0;
}

}  // namespace vmbfs::hyperv
