// A BusPort for tests: writes down in words what the bus asks of it, in order.
//
// A message that goes elsewhere than processor 0, SINT 2 says so at its end; a
// message that is not as long as shared/specs/vmbus.md 2.1 says is marked.

#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus.h"
#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {

class RecordingBusPort final : public BusPort {
 public:
  struct Sent {
    uint32_t vp;
    uint8_t sint;
    std::vector<std::byte> bytes;
  };
  struct Open {
    uint32_t channel_id;
    uint32_t connection_id;
    uint16_t event_flag;
    uint32_t target_vp;
    std::optional<MonitorTrigger> monitor;
    std::vector<uint64_t> incoming;
    std::vector<uint64_t> outgoing;
  };

  void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override {
    sent_.push_back({vp, sint, {message.begin(), message.end()}});
    std::string text = Text(message);
    if (vp != 0) absl::StrAppend(&text, " @vp", vp);
    if (sint != 2) absl::StrAppend(&text, " @sint", sint);
    log_.push_back(text);
  }
  void OpenChannel(const OpenRequest& request) override {
    opens_.push_back({request.channel_id,
                      request.connection_id,
                      request.event_flag,
                      request.target_vp,
                      request.monitor,
                      {request.incoming_page_frames.begin(), request.incoming_page_frames.end()},
                      {request.outgoing_page_frames.begin(), request.outgoing_page_frames.end()}});
    Note("open", request.offer);
  }
  void CloseChannel(OfferId offer) override { Note("close", offer); }
  void ModifyChannel(OfferId offer, uint32_t target_vp) override {
    Note("modify", offer);
    absl::StrAppend(&log_.back(), " to vp", target_vp);
  }
  void OfferReleased(OfferId offer) override { Note("released", offer); }
  void DropQueuedMessages() override { log_.push_back("port: drop queued messages"); }

  // What happened since the last call.
  std::vector<std::string> TakeLog() { return std::exchange(log_, {}); }
  const std::vector<Sent>& sent() const { return sent_; }
  const std::vector<Open>& opens() const { return opens_; }

 private:
  static std::string Status(std::span<const std::byte> message, size_t offset) {
    const uint64_t status = NumberAt(message, offset, 4);
    return status == 0 ? "ok" : absl::StrCat("0x", absl::Hex(status));
  }

  static std::string Text(std::span<const std::byte> message) {
    static constexpr std::pair<uint32_t, size_t> kSizes[] = {{1, 196}, {2, 12},  {4, 8},  {6, 20},
                                                             {10, 20}, {12, 12}, {17, 8}, {23, 44},
                                                             {24, 16}, {26, 9},  {28, 8}};
    if (message.size() < 8) return "BAD SIZE";
    const auto type = static_cast<uint32_t>(NumberAt(message, 0, 4));
    if (type == 15) return VersionResponseText(message);
    for (const auto& [known, size] : kSizes) {
      if (type == known && message.size() == size) return Text(type, message);
    }
    return absl::StrCat("BAD SIZE ", message.size(), " or type ", type);
  }

  static std::string Text(uint32_t type, std::span<const std::byte> message) {
    const auto word = [&](size_t offset) { return NumberAt(message, offset, 4); };
    switch (type) {
      case 1:
        return absl::StrCat("offer ", word(184));
      case 2:
        return absl::StrCat("rescind ", word(8));
      case 4:
        return "all offers delivered";
      case 6:
        return absl::StrCat("open result ", word(8), " open_id=", word(12), " ",
                            Status(message, 16));
      case 10:
        return absl::StrCat("gpadl created ", word(8), "/", word(12), " ", Status(message, 16));
      case 12:
        return absl::StrCat("gpadl torndown ", word(8));
      case 17:
        return "unload complete";
      case 26:
        return absl::StrCat("modify connection response ", NumberAt(message, 8, 1));
      case 28:
        return "pause response";
      case 23:
        return absl::StrCat("connect result ", Status(message, 40));
      default:
        return absl::StrCat("modify response ", word(8), " ", Status(message, 12));
    }
  }

  static std::string VersionResponseText(std::span<const std::byte> message) {
    if (message.size() != 16 && message.size() != 20) return "BAD SIZE";
    const uint64_t supported = NumberAt(message, 8, 1);
    const uint64_t state = NumberAt(message, 9, 1);
    const uint64_t word = NumberAt(message, 12, 4);
    if (supported == 0) return state == 0 && word == 0 ? "unsupported" : "BAD unsupported";
    std::string text = absl::StrCat("version state=", state, " word=0x", absl::Hex(word));
    if (message.size() == 20) {
      absl::StrAppend(&text, " features=0x", absl::Hex(NumberAt(message, 16, 4)));
    }
    return text;
  }

  void Note(const char* what, OfferId offer) {
    log_.push_back(absl::StrCat("port: ", what, " offer", static_cast<uint64_t>(offer)));
  }

  std::vector<std::string> log_;
  std::vector<Sent> sent_;
  std::vector<Open> opens_;
};

}  // namespace vmbfs::hyperv
