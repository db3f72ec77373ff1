// Reads of the largest size through rings that hold one answer and no two
// (shared/specs/vmbus.md section 13, statement 70).

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <string>
#include <tuple>

#include "core/vmbfs/device_fixture.h"

namespace vmbfs {
namespace {

using Parameters = std::tuple<hyperv::PageLayout, hyperv::InterruptMasking, size_t>;

// Parameters: where the ring's pages lie, how the guest masks interrupts, and
// how many requests it sends before it reads.
class FullRingTest : public DeviceTest, public testing::WithParamInterface<Parameters> {};

TEST_P(FullRingTest, TenThousandLargestReadsWithRandomDelaysNeverStall) {
  constexpr size_t kReads = 10000;
  constexpr size_t kReadBytes = 12276;
  const auto [layout, masking, outstanding_max] = GetParam();
  options_.layout = layout;
  options_.guest_masking = masking;
  const Bytes content = Pattern(100000);
  MakeDevice(MemoryBacking(content));
  OpenAndAgree();

  std::mt19937 random(1);
  std::uniform_int_distribution<size_t> some_offset(0, content.size() - kReadBytes);
  std::uniform_int_distribution<int> coin(0, 3);
  std::deque<size_t> asked_offsets;
  size_t sent = 0;
  size_t received = 0;
  size_t idle_steps = 0;
  while (received < kReads) {
    // Each side delays at random; who is not awake can do nothing at all.
    bool moved = false;
    if (sent < kReads && sent - received < outstanding_max && coin(random) == 0) {
      const size_t offset = some_offset(random);
      ASSERT_TRUE(Send(ReadBytes(kReadBytes, offset, u"\\imc.hiv")));
      asked_offsets.push_back(offset);
      ++sent;
      moved = true;
    }
    if (host_awake_ && coin(random) == 0) {
      RunDeviceOnce();
      moved = true;
    }
    if (guest_awake_ && coin(random) == 0) {
      moved = true;
      if (const std::optional<Bytes> answer = Receive()) {
        ASSERT_FALSE(asked_offsets.empty());
        const Bytes expected =
            ReadAnswerBytes(0, Range(content, asked_offsets.front(), kReadBytes));
        ASSERT_TRUE(*answer == expected) << "read " << received;
        asked_offsets.pop_front();
        ++received;
      }
    }
    idle_steps = moved ? 0 : idle_steps + 1;
    ASSERT_LT(idle_steps, 1000u) << "stalled after " << received << " of " << sent
                                 << " answers; host awake: " << host_awake_
                                 << ", guest awake: " << guest_awake_;
  }
  EXPECT_TRUE(pair_->OutsideIsUntouched());
  EXPECT_EQ(device_->status().bytes_read, kReads * kReadBytes);
}

INSTANTIATE_TEST_SUITE_P(Channels, FullRingTest,
                         testing::Combine(testing::ValuesIn(hyperv::kPageLayouts),
                                          testing::Values(hyperv::InterruptMasking::kWhileBusy,
                                                          hyperv::InterruptMasking::kNever),
                                          testing::Values(1, 8)));

}  // namespace
}  // namespace vmbfs
