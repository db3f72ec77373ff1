// Expected bytes are those of shared/specs/vmbus.md 2.10, and 2.3 to 2.8 for
// what has no example there.

#include "hyperv/guest/guest_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <numeric>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace vmbfs::hyperv {
namespace {

std::string Hex(std::span<const std::byte> bytes) {
  std::string text(bytes.size(), '\0');
  std::transform(bytes.begin(), bytes.end(), text.begin(),
                 [](std::byte byte) { return std::to_integer<char>(byte); });
  return absl::BytesToHexString(text);
}

std::string Hex(const char* spaced) { return absl::StrReplaceAll(spaced, {{" ", ""}}); }

std::string Zeros(size_t bytes) { return std::string(2 * bytes, '0'); }

std::vector<uint64_t> Frames(uint64_t first, size_t count) {
  std::vector<uint64_t> frames(count);
  std::iota(frames.begin(), frames.end(), first);
  return frames;
}

constexpr ContactPages kPages = {.interrupt_page_gpa = 0x11000,
                                 .parent_to_child_monitor_page_gpa = 0x13f8c000,
                                 .child_to_parent_monitor_page_gpa = 0x13f8d000};

TEST(GuestMessagesTest, FirmwareAsksFor6_0With56BytesAndItsClientId) {
  EXPECT_EQ(Hex(BuildInitiateContact(GuestProfile::kFirmware, kVersion6_0, 0, kPages)),
            Hex("0e 00 00 00 00 00 00 00 00 00 06 00 00 00 00 00"
                "00 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00"
                "00 00 00 00 00 00 00 00 64 39 dd 18 8a 3e 42 4e"
                "86 fa c8 e6 b1 91 ee 0e"));
}

TEST(GuestMessagesTest, FirmwareAsksFor3_0With40BytesAndNoPages) {
  EXPECT_EQ(Hex(BuildInitiateContact(GuestProfile::kFirmware, kVersion3_0, 0, kPages)),
            Hex("0e 00 00 00 00 00 00 00 00 00 03 00 00 00 00 00") + Zeros(24));
}

TEST(GuestMessagesTest, LinuxAsksFor5_3WithSint2AndBothMonitorPages) {
  EXPECT_EQ(Hex(BuildInitiateContact(GuestProfile::kLinux, kVersion5_3, 1, kPages)),
            Hex("0e 00 00 00 00 00 00 00 03 00 05 00 01 00 00 00"
                "02 00 00 00 00 00 00 00 00 c0 f8 13 00 00 00 00"
                "00 d0 f8 13 00 00 00 00"));
}

TEST(GuestMessagesTest, LinuxAsksFor6_0WithoutFeaturesIn40Bytes) {
  const GuestMessage message = BuildInitiateContact(GuestProfile::kLinux, kVersion6_0, 0, kPages);
  EXPECT_EQ(message.size(), 40u);
  EXPECT_EQ(Hex(std::span(message).subspan(16, 8)), Hex("02 00 00 00 00 00 00 00"));
}

TEST(GuestMessagesTest, LinuxBelow5_0SendsItsInterruptPage) {
  EXPECT_EQ(Hex(BuildInitiateContact(GuestProfile::kLinux, kVersion4_1, 0, kPages)),
            Hex("0e 00 00 00 00 00 00 00 01 00 04 00 00 00 00 00"
                "00 10 01 00 00 00 00 00 00 c0 f8 13 00 00 00 00"
                "00 d0 f8 13 00 00 00 00"));
}

TEST(GuestMessagesTest, OnlyLinuxFrom5_0UsesConnection4) {
  EXPECT_EQ(ContactConnection(GuestProfile::kLinux, kVersion5_0), 4u);
  EXPECT_EQ(ContactConnection(GuestProfile::kLinux, kVersion4_1), 1u);
  EXPECT_EQ(ContactConnection(GuestProfile::kFirmware, kVersion6_0), 1u);
}

TEST(GuestMessagesTest, FirmwareRingGpadlIsOneHeaderPaddedTo240Bytes) {
  const std::vector<GuestMessage> messages =
      BuildGpadl(GuestProfile::kFirmware, 1, 1, Frames(0x1230, 10));
  std::string expected =
      Hex("08 00 00 00 00 00 00 00 01 00 00 00 01 00 00 00"
          "58 00 01 00 00 a0 00 00 00 00 00 00");
  for (int low = 0x30; low <= 0x39; ++low) {
    absl::StrAppend(&expected, low - 0x30 + 30, "12000000000000");
  }
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(Hex(messages[0]), expected + Zeros(240 - 108));
}

TEST(GuestMessagesTest, FirmwareBodiesArePaddedAndAllHaveNumber0) {
  const std::vector<GuestMessage> messages =
      BuildGpadl(GuestProfile::kFirmware, 1, 7, Frames(1, 60));
  ASSERT_EQ(messages.size(), 3u);  // 26 + 28 + 6 page frames
  for (const GuestMessage& message : messages) EXPECT_EQ(message.size(), 240u);
  EXPECT_EQ(Hex(std::span(messages[2]).first(24)),
            Hex("09 00 00 00 00 00 00 00 00 00 00 00 07 00 00 00"
                "37 00 00 00 00 00 00 00"));
}

TEST(GuestMessagesTest, LinuxRingGpadlHasExactSizesAndNumbersFrom1) {
  const std::vector<GuestMessage> messages =
      BuildGpadl(GuestProfile::kLinux, 2, 0xE1E10, Frames(0x100, 34));
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].size(), 236u);
  EXPECT_EQ(Hex(std::span(messages[0]).first(28)),
            Hex("08 00 00 00 00 00 00 00 02 00 00 00 10 1e 0e 00"
                "18 01 01 00 00 20 02 00 00 00 00 00"));
  EXPECT_EQ(messages[1].size(), 80u);
  EXPECT_EQ(Hex(std::span(messages[1]).first(24)),
            Hex("09 00 00 00 00 00 00 00 01 00 00 00 10 1e 0e 00"
                "1a 01 00 00 00 00 00 00"));
}

TEST(GuestMessagesTest, GpadlOf1024PagesTakesAHeaderAnd36Bodies) {
  EXPECT_EQ(BuildGpadl(GuestProfile::kLinux, 1, 1, Frames(1, 1024)).size(), 37u);
}

TEST(GuestMessagesTest, FirmwareOpensWith156BytesAndOpenId0) {
  EXPECT_EQ(Hex(BuildOpenChannel(GuestProfile::kFirmware, 1, 1, 0, 5)),
            Hex("05000000 00000000 01000000 00000000 01000000 00000000 05000000") + Zeros(128));
}

TEST(GuestMessagesTest, LinuxOpensWith148BytesAndTheChannelIdAsOpenId) {
  EXPECT_EQ(Hex(BuildOpenChannel(GuestProfile::kLinux, 3, 0xE1E12, 1, 17)),
            Hex("05000000 00000000 03000000 03000000 121e0e00 01000000 11000000") + Zeros(120));
}

TEST(GuestMessagesTest, SmallMessagesHaveTheirExactLayout) {
  EXPECT_EQ(Hex(BuildHeaderOnly(MessageType::kRequestOffers)), Hex("03000000 00000000"));
  EXPECT_EQ(Hex(BuildChannelId(MessageType::kCloseChannel, 5)), Hex("07000000 00000000 05000000"));
  EXPECT_EQ(Hex(BuildGpadlTeardown(5, 9)), Hex("0b000000 00000000 05000000 09000000"));
  EXPECT_EQ(Hex(BuildModifyChannel(5, 1)), Hex("16000000 00000000 05000000 01000000"));
}

}  // namespace
}  // namespace vmbfs::hyperv
