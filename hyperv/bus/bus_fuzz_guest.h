// The guest's end of bus_fuzz: what it may be told, by the rules of
// shared/specs/vmbus.md 2.1, 3.4, 3.5 and 3.8.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <tuple>

#include "hyperv/bus/bus.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {

class GuestModel {
 public:
  // A message goes to the bus, valid or not.
  void Posting(std::span<const std::byte> message, uint32_t connection) {
    if (message.size() < 8) return;
    const uint64_t type = NumberAt(message, 0, 4);
    ++posted_[type];
    if (type == 14) may_speak_ = true;
    // Whether the bus takes a release depends on the channel's state.
    if (type == 13 && message.size() >= 12) maybe_released_.insert(NumberAt(message, 8, 4));
    if (type == 5 && message.size() >= 156) {
      asked_signals_.emplace(NumberAt(message, 8, 4), NumberAt(message, 148, 4),
                             NumberAt(message, 152, 2));
    }
    if (type == 29 && message.size() <= 240 && (connection == 1 || connection == 4)) {
      paused_ = false;
    }
  }

  void Told(uint8_t sint, std::span<const std::byte> message) {
    Require(message.size() >= 8, "a message has a header");
    const uint64_t type = NumberAt(message, 0, 4);
    CheckSize(type, message);
    Require(may_speak_, "nothing is said between the end of a connection and the next contact");
    // A refusal at another SINT is nobody's business here.
    const bool ends_connection = type == 17 || type == 15;
    Require(ends_connection || !paused_, "nothing is said to a guest that pauses");
    Require(ends_connection || sint != 2 || !disconnecting_,
            "nothing but the end is said while a connection ends");
    ++told_[type];
    const auto answers = [&](uint64_t answer, uint64_t request, uint64_t other) {
      Require(told_[answer] <= posted_[request] + posted_[other], "an answer has its request");
    };
    answers(6, 5, 18);
    answers(10, 8, 8);
    answers(12, 11, 11);
    answers(15, 14, 14);
    answers(17, 16, 16);
    answers(24, 22, 22);
    answers(26, 25, 25);
    answers(28, 27, 27);
    switch (type) {
      case 1:
        CheckMonitor(message);
        return Offered(NumberAt(message, 184, 4));
      case 2:
        return Rescinded(NumberAt(message, 8, 4));
      case 15:
        if (sint == 2) Forget();
        return;
      case 17:
        Forget();
        may_speak_ = false;
        return;
      case 28:
        paused_ = true;
        return;
      default:
        return;
    }
  }

  // The bus's own account of the connection, after each step.
  void Look(const BusStatus& status) {
    disconnecting_ = status.state == "disconnecting";
    chooses_signals_ = (status.features & 1) != 0;
    monitor_page_gpa_ = status.child_to_parent_monitor_page_gpa;
    if (status.state == "connected") {
      Require(status.paused == paused_, "a pause lasts from its answer to the resume");
    }
    Require(paused_ || status.messages_held == 0, "messages are held in a pause only");
    Require((status.features & ~0x2Du) == 0, "only the features that are served are agreed on");
  }

  void WasReset() {
    Forget();
    may_speak_ = false;
  }

  bool Holds(uint32_t channel_id) const { return held_.contains(channel_id); }
  bool AskedFor(uint32_t channel_id, uint32_t connection_id, uint16_t event_flag) const {
    return asked_signals_.contains({channel_id, connection_id, event_flag});
  }
  uint64_t monitor_page_gpa() const { return monitor_page_gpa_; }
  // 0xFF: none.
  uint64_t MonitorOf(uint32_t channel_id) const { return monitors_.at(channel_id); }
  bool chooses_signals() const { return chooses_signals_; }
  bool paused() const { return paused_; }

 private:
  static void CheckSize(uint64_t type, std::span<const std::byte> message) {
    if (type == 15) {
      const bool supported = message.size() > 8 && message[8] == std::byte{1};
      Require(message.size() == 16 || (supported && message.size() == 20), "VersionResponse");
      return;
    }
    static const std::map<uint64_t, size_t> kBytes = {{1, 196}, {2, 12},  {4, 8},  {6, 20},
                                                      {10, 20}, {12, 12}, {17, 8}, {20, 12},
                                                      {23, 44}, {24, 16}, {26, 9}, {28, 8}};
    const auto bytes = kBytes.find(type);
    Require(bytes != kBytes.end() && message.size() == bytes->second,
            "a host's message of exactly its size");
  }

  void CheckMonitor(std::span<const std::byte> offer) {
    const uint64_t id = NumberAt(offer, 188, 1);
    const bool allocated = NumberAt(offer, 189, 1) == 1;
    Require(allocated ? id < 128 : id == 0xFF, "a monitor is one of 128, or none");
    Require(NumberAt(offer, 189, 3) == (allocated ? 0x101u : 0x100u), "and all else is zero");
    monitors_[NumberAt(offer, 184, 4)] = id;
  }

  void Offered(uint64_t channel_id) {
    Require(channel_id >= 1 && channel_id <= 2047, "a channel id is one of 2,047");
    Require(!held_.contains(channel_id) || maybe_released_.contains(channel_id),
            "an id that the guest holds is not offered again");
    maybe_released_.erase(channel_id);
    held_[channel_id] = false;
  }

  void Rescinded(uint64_t channel_id) {
    const auto held = held_.find(channel_id);
    Require(held != held_.end() && !held->second, "an offer is taken back once");
    held->second = true;
  }

  void Forget() {
    held_.clear();
    maybe_released_.clear();
    asked_signals_.clear();
    paused_ = false;
    disconnecting_ = false;
  }

  std::map<uint64_t, uint64_t> posted_;  // by type, the valid and the mangled
  std::map<uint64_t, uint64_t> told_;
  std::map<uint64_t, bool> held_;          // channel id -> rescinded
  std::map<uint64_t, uint64_t> monitors_;  // by channel id, of their last offers
  std::set<uint64_t> maybe_released_;
  std::set<std::tuple<uint64_t, uint64_t, uint64_t>> asked_signals_;  // channel, connection, flag
  bool may_speak_ = false;
  bool paused_ = false;
  bool disconnecting_ = false;
  bool chooses_signals_ = false;
  uint64_t monitor_page_gpa_ = 0;
};

}  // namespace vmbfs::hyperv
