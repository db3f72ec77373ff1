#include "hyperv/guest/guest_synic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "absl/status/status.h"

namespace vmbfs::hyperv {
namespace {

// SINT 2's slot and flags within their pages (shared/specs/vmbus.md 1.1, 1.2).
constexpr size_t kSlot = 2 * 256;
constexpr size_t kFlags = 2 * 256;

class GuestSynicTest : public testing::Test {
 protected:
  // The slot content of vmbus.md 2.10: VersionResponse of 6.0, 20 bytes.
  void FillSlot() {
    constexpr std::array<uint8_t, 36> kBytes = {0x01, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0, 0,
                                                0,    0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0,
                                                1,    0, 0, 0, 1,    0, 0, 0, 8, 0, 0, 0};
    std::transform(kBytes.begin(), kBytes.end(), &message_page_[kSlot],
                   [](uint8_t byte) { return std::byte{byte}; });
  }

  alignas(8) std::array<std::byte, 4096> message_page_{};
  alignas(8) std::array<std::byte, 4096> flags_page_{};
  GuestSynic synic_{message_page_, flags_page_};
};

TEST_F(GuestSynicTest, EmptySlotGivesNothing) {
  absl::StatusOr<std::optional<TakenMessage>> taken = synic_.TakeMessage();
  ASSERT_TRUE(taken.ok());
  EXPECT_FALSE(taken->has_value());
}

TEST_F(GuestSynicTest, MessageIsTakenOnceAndTheSlotIsEmptyAfterwards) {
  FillSlot();
  absl::StatusOr<std::optional<TakenMessage>> taken = synic_.TakeMessage();
  ASSERT_TRUE(taken.ok() && taken->has_value());
  EXPECT_EQ((*taken)->bytes, 20u);
  EXPECT_EQ((*taken)->payload[0], std::byte{0x0f});
  EXPECT_EQ((*taken)->payload[16], std::byte{0x08});
  EXPECT_FALSE((*taken)->end_of_message);
  EXPECT_EQ(message_page_[kSlot], std::byte{0});
  EXPECT_FALSE(synic_.TakeMessage()->has_value());
}

TEST_F(GuestSynicTest, PendingBitAsksForEndOfMessage) {
  FillSlot();
  message_page_[kSlot + 5] = std::byte{1};
  EXPECT_TRUE((*synic_.TakeMessage())->end_of_message);
}

TEST_F(GuestSynicTest, ForeignTypeIsRefusedAndTheSlotEmptied) {
  FillSlot();
  message_page_[kSlot + 3] = std::byte{0x80};
  EXPECT_EQ(synic_.TakeMessage().status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(synic_.TakeMessage().ok());
}

TEST_F(GuestSynicTest, LengthBeyondTheSlotIsRefused) {
  FillSlot();
  message_page_[kSlot + 4] = std::byte{241};
  EXPECT_EQ(synic_.TakeMessage().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(GuestSynicTest, FlagsAreTakenWithTheirNumbersAndCleared) {
  flags_page_[kFlags] = std::byte{0x02};        // flag 1
  flags_page_[kFlags + 255] = std::byte{0x80};  // flag 2047
  flags_page_[kFlags + 256] = std::byte{0x01};  // SINT 3's
  EventFlags expected;
  expected.set(1).set(2047);
  EXPECT_EQ(synic_.TakeEventFlags(), expected);
  EXPECT_TRUE(synic_.TakeEventFlags().none());
  EXPECT_EQ(flags_page_[kFlags + 256], std::byte{0x01});
}

TEST_F(GuestSynicTest, ResetEmptiesBoth) {
  FillSlot();
  flags_page_[kFlags] = std::byte{0x02};
  synic_.Reset();
  EXPECT_FALSE(synic_.TakeMessage()->has_value());
  EXPECT_TRUE(synic_.TakeEventFlags().none());
}

}  // namespace
}  // namespace vmbfs::hyperv
