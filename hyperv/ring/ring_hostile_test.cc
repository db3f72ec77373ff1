// Both sides of a ring while a third thread rewrites its control words and its
// bytes: each call answers, or refuses, and nothing around the ring changes.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <random>
#include <thread>

#include "absl/status/status.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::chrono::milliseconds kAttackTime{500};
constexpr size_t kDataPages = 2;
constexpr uint32_t kDataBytes = kDataPages * kPageBytes;

// What an attacker would try: values at and around the limits, plausible
// indices, and anything.
uint32_t HostileWord(std::mt19937& random) {
  static constexpr std::array<uint32_t, 8> kLimits = {
      0, 4, 8, kDataBytes - 8, kDataBytes - 1, kDataBytes, 0x80000000u, 0xFFFFFFF8u};
  switch (random() % 4) {
    case 0:
      return kLimits[random() % kLimits.size()];
    case 1:
      return static_cast<uint32_t>(random());
    default:
      return static_cast<uint32_t>(random() % (kDataBytes / 8) * 8);
  }
}

void Attack(RingMemory memory, const std::atomic<bool>& stop) {
  static constexpr std::array kWords = {ControlWord::kIn, ControlWord::kOut,
                                        ControlWord::kInterruptMask, ControlWord::kPendingSendSize};
  std::mt19937 random(60);
  while (!stop) {
    memory.Store(kWords[random() % kWords.size()], HostileWord(random), std::memory_order_relaxed);
    // Descriptors that are nearly right: type, offset, length and flags.
    std::array<std::byte, 8> descriptor{};
    descriptor[0] = static_cast<std::byte>(6 + random() % 6);
    descriptor[2] = static_cast<std::byte>(random() % 4);
    descriptor[4] = static_cast<std::byte>(random());
    descriptor[5] = static_cast<std::byte>(random() % 5);
    descriptor[6] = static_cast<std::byte>(random() % 2);
    memory.CopyIn(static_cast<uint32_t>(random() % (kDataBytes / 8) * 8), descriptor);
  }
}

// Reads as a device does; after a refusal the ring is opened anew, as often as
// the attacker's indices allow.
void ReadUnderAttack(const PrivateRingPages& pages, const std::atomic<bool>& stop,
                     size_t& refusals) {
  std::array<std::byte, kDataBytes> buffer;
  while (!stop) {
    auto ring = IncomingRing::Open(pages.Map());
    absl::Status status = ring.status();
    while (status.ok() && !stop) {
      const auto packet = ring->Read(buffer);
      status = packet.status();
      if (!status.ok()) break;
      (void)ring->Consume();
      if (packet->has_value()) continue;
      status = ring->Arm().status();
      ring->Mask();
    }
    if (status.ok()) continue;
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    ++refusals;
  }
}

void WriteUnderAttack(const PrivateRingPages& pages, const std::atomic<bool>& stop,
                      size_t& refusals) {
  std::mt19937 random(61);
  const std::array<std::byte, 3000> payload{};
  while (!stop) {
    auto ring = OutgoingRing::Open(pages.Map());
    absl::Status status = ring.status();
    while (status.ok() && !stop) {
      const size_t payload_bytes = random() % payload.size();
      const auto fits = ring->Reserve(payload_bytes);
      status = fits.status();
      if (!status.ok()) break;
      if (*fits) {
        ring->CopyIn(0, std::span(payload).first(payload_bytes));
        ring->Commit(payload_bytes);
        (void)ring->Publish();
      } else {
        status = ring->RequestSpace(payload_bytes).status();
        ring->ClearSpaceRequest();
      }
    }
    if (status.ok()) continue;
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    ++refusals;
  }
}

class RingHostileTest : public ::testing::TestWithParam<PageLayout> {};

// Statements 60 and 61.
TEST_P(RingHostileTest, WordsAndBytesThatChangeAtAnyMomentAreRefusedOrHarmless) {
  const PrivateRingPages pages(kDataPages, GetParam());
  std::atomic<bool> stop = false;
  size_t reader_refusals = 0;
  size_t writer_refusals = 0;
  std::thread attacker([&] { Attack(pages.Map(), stop); });
  std::thread reader([&] { ReadUnderAttack(pages, stop, reader_refusals); });
  std::thread writer([&] { WriteUnderAttack(pages, stop, writer_refusals); });
  std::this_thread::sleep_for(kAttackTime);
  stop = true;
  attacker.join();
  reader.join();
  writer.join();
  EXPECT_GT(reader_refusals, 0u);
  EXPECT_GT(writer_refusals, 0u);
  EXPECT_TRUE(pages.OutsideIsUntouched());
}

INSTANTIATE_TEST_SUITE_P(Layouts, RingHostileTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
