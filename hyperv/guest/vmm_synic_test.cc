// The VMM's message slots and event flags: the example of shared/specs/vmbus.md
// 1.1, and what a guest's side of them takes.

#include "hyperv/guest/vmm_synic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "hyperv/guest/guest_synic.h"

namespace vmbfs::hyperv {
namespace {

constexpr uint64_t kMessagePage = 1;
constexpr uint64_t kEventPage = 2;

class VmmSynicTest : public testing::Test {
 protected:
  VmmSynicTest() { synic_.SetRegisters(0, kOn); }

  static constexpr SynicRegisters kOn = {
      .scontrol = 1, .siefp = 0x2001, .simp = 0x1001, .sint2 = 0x41};

  const std::unique_ptr<GuestRam> ram_ = *GuestRam::Create(4 * kPageBytes);
  VmmSynic synic_{*ram_, 1};
  const std::array<std::byte, 3> message_ = {std::byte{1}, std::byte{2}, std::byte{3}};
};

TEST_F(VmmSynicTest, MessageHasTypeLengthAndPayloadAtTheirPlaces) {
  std::fill_n(ram_->Page(kMessagePage).begin() + 0x204, 32, std::byte{0xFF});
  EXPECT_EQ(synic_.Deliver(0, 2, 1, message_), LinkMsgResult::kDelivered);
  const std::span<std::byte> slot = ram_->Page(kMessagePage).subspan(0x200, 19);
  EXPECT_THAT(std::vector<std::byte>(slot.begin(), slot.begin() + 6),
              testing::ElementsAre(std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0},
                                   std::byte{3}, std::byte{0}));
  EXPECT_THAT(std::vector<std::byte>(slot.begin() + 8, slot.end()),
              testing::ElementsAre(std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                                   std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                                   std::byte{1}, std::byte{2}, std::byte{3}));
}

TEST_F(VmmSynicTest, FullSlotIsMarkedAndKeepsItsMessage) {
  synic_.Deliver(0, 2, 1, message_);
  EXPECT_EQ(synic_.Deliver(0, 2, 1, {}), LinkMsgResult::kBusy);
  EXPECT_EQ(synic_.Deliver(0, 3, 1, {}), LinkMsgResult::kDelivered);
  GuestSynic guest(ram_->Page(kMessagePage), ram_->Page(kEventPage));
  const TakenMessage taken = **guest.TakeMessage();
  EXPECT_EQ(taken.bytes, 3u);
  EXPECT_TRUE(taken.end_of_message);
  EXPECT_EQ(synic_.Deliver(0, 2, 1, {}), LinkMsgResult::kDelivered);
  EXPECT_FALSE((**guest.TakeMessage()).end_of_message);
}

TEST_F(VmmSynicTest, EventFlagIsSetOnceUntilTheGuestTakesIt) {
  EXPECT_TRUE(synic_.SetEventFlag(0, 9));
  EXPECT_EQ(ram_->Page(kEventPage)[0x201], std::byte{2});
  EXPECT_FALSE(synic_.SetEventFlag(0, 9));
  GuestSynic guest(ram_->Page(kMessagePage), ram_->Page(kEventPage));
  EXPECT_TRUE(guest.TakeEventFlags().test(9));
  EXPECT_TRUE(synic_.SetEventFlag(0, 9));
}

TEST_F(VmmSynicTest, WhatDoesNotExistOrIsOffIsLeftAlone) {
  EXPECT_EQ(synic_.Deliver(1, 2, 1, message_), LinkMsgResult::kNoMessagePage);
  EXPECT_EQ(synic_.Deliver(0, 16, 1, message_), LinkMsgResult::kNoMessagePage);
  EXPECT_FALSE(synic_.SetEventFlag(1, 9));
  EXPECT_FALSE(synic_.SetEventFlag(0, 2048));
  for (const SynicRegisters& off : {
           SynicRegisters{},
           SynicRegisters{.scontrol = 0, .siefp = 0x2001, .simp = 0x1001, .sint2 = 0x41},
           SynicRegisters{.scontrol = 1, .siefp = 0x2000, .simp = 0x1000, .sint2 = 0x41},
           SynicRegisters{.scontrol = 1, .siefp = 0x4001, .simp = 0x4001, .sint2 = 0x41},
           SynicRegisters{.scontrol = 1, .siefp = 0x2001, .simp = 0x1001, .sint2 = 0x10041},
       }) {
    synic_.SetRegisters(0, off);
    EXPECT_EQ(synic_.Deliver(0, 2, 1, message_), LinkMsgResult::kNoMessagePage);
    EXPECT_FALSE(synic_.SetEventFlag(0, 9));
  }
  for (uint64_t page : {uint64_t{0}, kMessagePage, kEventPage}) {
    EXPECT_THAT(ram_->Page(page), testing::Each(std::byte{0}));
  }
}

}  // namespace
}  // namespace vmbfs::hyperv
