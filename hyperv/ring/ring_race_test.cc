// The instants at which one side goes to sleep while the other one makes what
// it waits for: in every order of their steps, somebody notices.
//
// Two threads walk over many rings at the same time, one step a ring, so that
// their steps often fall on each other. A wrong order shows sooner or later, on
// a busy machine later.

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <tuple>
#include <vector>

#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kRings = 512;
constexpr std::chrono::milliseconds kRaceTime{1000};

// Where two threads wait for each other.
class Barrier {
 public:
  void Meet() {
    const uint32_t round = round_;
    if (arrived_.fetch_add(1) == 1) {
      arrived_ = 0;
      round_ = round + 1;
      return;
    }
    for (int spins = 0; round_ == round; ++spins) {
      if (spins > 2000) std::this_thread::yield();
    }
  }

 private:
  std::atomic<uint32_t> arrived_ = 0;
  std::atomic<uint32_t> round_ = 0;
};

// A delay of a few nanoseconds, so that the threads pass each other.
void Pause(size_t step) {
  for (std::atomic<size_t> left = step % 8; left != 0;) {
    left.store(left - 1, std::memory_order_relaxed);
  }
}

// Both sides of one ring, and what each of them was told.
struct Contended {
  explicit Contended(InterruptMasking masking)
      : reader(*IncomingRing::Open(pages.Map(), masking)),
        writer(*OutgoingRing::Open(pages.Map())) {}

  void Commit(size_t payload_bytes) {
    if (*writer.Reserve(payload_bytes)) writer.Commit(payload_bytes);
  }
  void ReadAll() {
    std::array<std::byte, kPageBytes> buffer;
    while ((*reader.Read(buffer)).has_value()) {
    }
  }

  PrivateRingPages pages{1, PageLayout::kContiguous};
  IncomingRing reader;
  OutgoingRing writer;
  bool signalled = false;
  bool seen = false;
};

// `prepare` runs on each ring alone; then `signaller` and `sleeper` run on all
// of them on two threads, and at least one of them must have noticed the other.
template <typename Prepare, typename Signaller, typename Sleeper>
void Race(InterruptMasking masking, Prepare prepare, Signaller signaller, Sleeper sleeper) {
  std::vector<std::unique_ptr<Contended>> rings;
  for (size_t i = 0; i < kRings; ++i) rings.push_back(std::make_unique<Contended>(masking));
  Barrier barrier;
  std::atomic<bool> stop = false;
  std::thread second([&] {
    for (size_t round = 0;; ++round) {
      barrier.Meet();
      if (stop) return;
      for (size_t i = 0; i < kRings; ++i) {
        Pause(i + round);
        rings[i]->signalled = signaller(*rings[i]);
      }
      barrier.Meet();
    }
  });
  size_t lost = 0;
  const auto end = std::chrono::steady_clock::now() + kRaceTime;
  while (std::chrono::steady_clock::now() < end) {
    for (const auto& ring : rings) prepare(*ring);
    barrier.Meet();
    for (size_t i = 0; i < kRings; ++i) {
      Pause(i * 3);
      rings[i]->seen = sleeper(*rings[i]);
    }
    barrier.Meet();
    for (const auto& ring : rings) lost += !ring->signalled && !ring->seen;
  }
  stop = true;
  barrier.Meet();
  second.join();
  EXPECT_EQ(lost, 0u);
}

TEST(RingRaceTest, PacketIsSeenByTheSleeperOrSignalledByTheWriter) {
  Race(
      InterruptMasking::kWhileBusy,
      [](Contended& ring) {
        ring.ReadAll();
        EXPECT_FALSE(ring.reader.Consume());
        ring.reader.Mask();
        ring.Commit(8);
      },
      [](Contended& ring) { return ring.writer.Publish(); },
      [](Contended& ring) { return *ring.reader.Arm(); });
}

TEST(RingRaceTest, ReaderThatNeverMasksConsumesAndSeesThePacketOrIsSignalled) {
  Race(
      InterruptMasking::kNever,
      [](Contended& ring) {
        // One packet is read and not consumed yet, the next one is coming.
        ring.ReadAll();
        std::ignore = ring.reader.Consume();
        ring.Commit(8);
        std::ignore = ring.writer.Publish();
        ring.ReadAll();
        ring.Commit(8);
      },
      [](Contended& ring) { return ring.writer.Publish(); },
      [](Contended& ring) { return !ring.reader.Consume() && *ring.reader.Arm(); });
}

TEST(RingRaceTest, SpaceIsSeenByTheWaitingWriterOrSignalledByTheReader) {
  constexpr size_t kPayloadBytes = 3000;
  Race(
      InterruptMasking::kWhileBusy,
      [](Contended& ring) {
        ring.writer.ClearSpaceRequest();
        ring.Commit(kPayloadBytes);
        std::ignore = ring.writer.Publish();
        ring.ReadAll();
      },
      [](Contended& ring) { return ring.reader.Consume(); },
      [](Contended& ring) { return *ring.writer.RequestSpace(kPayloadBytes); });
}

}  // namespace
}  // namespace vmbfs::hyperv
