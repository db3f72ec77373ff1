// A bus with a recording port, and the guest's messages by name.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "hyperv/bus/bus.h"
#include "hyperv/bus/recording_bus_port.h"
#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {

class BusTest : public ::testing::Test {
 protected:
  static constexpr Guid kInterface = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
  static constexpr Guid kImc = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
  static constexpr Guid kBoot = Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592");
  static constexpr uint32_t kNoVp = 0xFFFFFFFF;

  static ChannelOffer PipeOffer(const Guid& instance) {
    ChannelOffer offer;
    offer.interface_id = kInterface;
    offer.instance_id = instance;
    offer.flags = 0x0010;
    offer.user_defined[0] = std::byte{4};
    return offer;
  }
  OfferId Offer(const Guid& instance) { return bus_.Offer(PipeOffer(instance)).value(); }

  void Post(std::span<const std::byte> message, uint32_t connection = 1) {
    bus_.HandleMessage(connection, message);
  }
  static MessageBytes ContactMessage(uint32_t version) {
    return MessageBytes(14, 40).U32(8, version);
  }
  void Contact(uint32_t version) { Post(ContactMessage(version)); }
  // At 6.0, with the client id there where the features ask for it.
  void ContactWithFeatures(uint32_t features) {
    Post(MessageBytes(14, 56).U32(8, 0x00060000).U32(20, features));
  }
  void RequestOffers() { Post(MessageBytes(3, 8)); }
  void Unload() { Post(MessageBytes(16, 8)); }
  void CreateGpadl(uint32_t channel_id, uint32_t gpadl_id, size_t pages = 10) {
    for (const MessageBytes& each : GpadlMessages(channel_id, gpadl_id, pages, false)) Post(each);
  }
  void TearDownGpadl(uint32_t channel_id, uint32_t gpadl_id) {
    Post(MessageBytes(11, 16).U32(8, channel_id).U32(12, gpadl_id));
  }
  static MessageBytes OpenMessage(uint32_t channel_id, uint32_t gpadl_id, uint32_t offset = 5) {
    MessageBytes message(5, 148);
    return message.U32(8, channel_id).U32(12, 77).U32(16, gpadl_id).U32(24, offset);
  }
  void Open(uint32_t channel_id, uint32_t gpadl_id = 5, uint32_t offset = 5) {
    Post(OpenMessage(channel_id, gpadl_id, offset));
  }
  void Close(uint32_t channel_id) { Post(MessageBytes(7, 12).U32(8, channel_id)); }
  void ReleaseId(uint32_t channel_id) { Post(MessageBytes(13, 12).U32(8, channel_id)); }
  void Modify(uint32_t channel_id, uint32_t vp) {
    Post(MessageBytes(22, 16).U32(8, channel_id).U32(12, vp));
  }

  // A GPADL of one range of `pages` pages from page frame 0x1230 on: `padded`
  // to 240 bytes with message number 0, as the firmware sends it, or exact with
  // counted messages, as Linux does.
  static std::vector<MessageBytes> GpadlMessages(uint32_t channel_id, uint32_t gpadl_id,
                                                 size_t pages, bool padded) {
    std::vector<uint64_t> words = {pages * 4096};
    for (size_t i = 0; i < pages; ++i) words.push_back(0x1230 + i);
    std::vector<MessageBytes> messages;
    size_t done = 0;
    const auto append = [&](uint32_t type, size_t fixed, size_t words_max) {
      const size_t count = std::min(words_max, words.size() - done);
      MessageBytes message(type, padded ? 240 : fixed + 8 * count);
      for (size_t i = 0; i < count; ++i) message.U64(fixed + 8 * i, words[done++]);
      messages.push_back(message);
    };
    append(8, 20, 27);
    messages[0].U32(8, channel_id).U32(12, gpadl_id);
    messages[0].U16(16, static_cast<uint16_t>(8 * words.size())).U16(18, 1);
    while (done < words.size()) {
      append(9, 16, 28);
      const auto number = static_cast<uint32_t>(messages.size() - 1);
      messages.back().U32(8, padded ? 0 : number).U32(12, gpadl_id);
    }
    return messages;
  }

  // Connects with IMC (channel 1) offered; nothing of it stays in the log.
  void ConnectWithOneChannel(uint32_t version = 0x00050003) {
    imc_ = Offer(kImc);
    Contact(version);
    RequestOffers();
    log();
  }
  // The same with the channel open on GPADL 5.
  void ConnectAndOpen(uint32_t version = 0x00050003) {
    ConnectWithOneChannel(version);
    CreateGpadl(1, 5);
    Open(1);
    bus_.OpenDone(imc_, absl::OkStatus());
    log();
  }

  std::vector<std::string> log() { return port_.TakeLog(); }
  std::string StateOf(OfferId offer) const {
    for (const BusChannelStatus& each : bus_.channels()) {
      if (each.offer == offer) return each.state;
    }
    return "gone";
  }
  // The VM's next boot finds a bus that works from contact to open.
  // REQUIRES: something is offered.
  void ExpectFreshGuestIsServed() {
    log();
    Contact(0x00060000);
    RequestOffers();
    CreateGpadl(1, 5);
    Open(1);
    bus_.OpenDone(bus_.channels().front().offer, absl::OkStatus());
    EXPECT_THAT(log(), ::testing::IsSupersetOf({"version state=0 word=0x1 features=0x0", "offer 1",
                                                "all offers delivered", "gpadl created 1/5 ok",
                                                "open result 1 open_id=77 ok"}));
  }

  RecordingBusPort port_;
  Bus bus_{port_};
  OfferId imc_{};
};

}  // namespace vmbfs::hyperv
