// What only DIRECT delivery has: bytes in guest memory, interrupt sources.

#include "hyperv/link/direct_synic.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kPages = 8;
constexpr uint64_t kMessagePage = 0x1000;
constexpr uint64_t kEventPage = 0x2000;
constexpr SynicRegisters kEnabled{
    .scontrol = 1, .siefp = kEventPage | 1, .simp = kMessagePage | 1, .sint2 = 0x41};

std::vector<std::byte> Text(const std::string& text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

class DirectSynicTest : public ::testing::Test {
 protected:
  DirectSynicTest() {
    UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd.get(), kPages * 4096), 0);
    EXPECT_EQ(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    void* mapped = ::mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    ram_ = static_cast<std::byte*>(mapped);
    AddMemory(UniqueFd(::dup(fd.get())));
    fd_ = std::move(fd);
  }
  ~DirectSynicTest() override { ::munmap(ram_, kPages * 4096); }

  void AddMemory(UniqueFd fd) {
    ASSERT_TRUE(
        memory_
            .AddRegion({.id = 1, .gpa = 0, .bytes = kPages * 4096, .file_offset = 0}, std::move(fd))
            .ok());
  }
  void Ready(uint32_t vp = 0, uint8_t sint = 2) {
    irq_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    synic_.SintReady(vp, sint, UniqueFd(::dup(irq_.get())), nullptr);
  }
  void Enable() {
    synic_.SetRunning(true);
    synic_.SetRegisters(0, kEnabled);
  }
  // How often the interrupt was raised since the last look.
  uint64_t Interrupts() {
    eventfd_t count = 0;
    return ::eventfd_read(irq_.get(), &count) == 0 ? count : 0;
  }

  std::byte* slot(uint8_t sint = 2) { return ram_ + kMessagePage + sint * 256; }
  std::atomic_ref<uint32_t> Word(std::byte* at) {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at));
  }
  bool Pending() { return (Word(slot() + 4).load() & 0x100) != 0; }
  std::string Payload(uint8_t sint = 2) {
    std::string text(Word(slot(sint) + 4).load() & 0xFF, '\0');
    CopyFromGuest(reinterpret_cast<std::byte*>(text.data()), slot(sint) + 16, text.size());
    return text;
  }
  // As a guest takes a message; true when it has to write EOM.
  bool EmptySlot() {
    Word(slot()).store(0);
    return Pending();
  }
  void Post(const std::string& text, uint8_t sint = 2) { synic_.PostMessage(0, sint, Text(text)); }

  GuestMemory memory_;
  UniqueFd fd_;
  std::byte* ram_ = nullptr;
  UniqueFd irq_;
  std::vector<std::pair<uint32_t, uint8_t>> requested_;
  DirectSynic synic_{memory_, [this](DirectSynic&, uint32_t vp, uint8_t sint) {
                       requested_.emplace_back(vp, sint);
                     }};
};

TEST_F(DirectSynicTest, MessageIsWrittenAsTheSpecificationSays) {
  Enable();
  Post("12345");
  Ready();
  // shared/specs/vmbus.md 1.1: type 1, length 5, no flags, sender 0.
  const std::array<unsigned char, 21> expected = {1, 0, 0, 0, 5, 0,   0,   0,   0,   0,  0,
                                                  0, 0, 0, 0, 0, '1', '2', '3', '4', '5'};
  EXPECT_EQ(std::memcmp(slot(), expected.data(), expected.size()), 0);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(synic_.queued_messages(), 0u);
}

TEST_F(DirectSynicTest, SourceIsRequestedOnceAndMessagesWaitForIt) {
  Enable();
  Post("a");
  Post("b");
  EXPECT_EQ(requested_, (std::vector<std::pair<uint32_t, uint8_t>>{{0, 2}}));
  EXPECT_EQ(Word(slot()).load(), 0u);
  EXPECT_EQ(synic_.queued_messages(), 2u);
  Ready();
  EXPECT_EQ(Payload(), "a");
}

// The guest takes messages on a thread of its own, with the rules of
// shared/specs/vmbus.md 1.1; EOM comes only where the pending flag asks for it.
TEST_F(DirectSynicTest, HundredMessagesArriveInOrderAndNoneIsLost) {
  Enable();
  Post("0");
  Ready();
  std::atomic<int> end_of_message_count = 0;
  std::vector<std::string> taken;
  std::thread guest([&] {
    while (taken.size() < 100) {
      if (Word(slot()).load(std::memory_order_acquire) == 0) {
        std::this_thread::yield();
        continue;
      }
      taken.push_back(Payload());
      if (EmptySlot()) ++end_of_message_count;
    }
  });
  int seen = 0;
  const auto look = [&] {
    while (seen < end_of_message_count) {
      ++seen;
      synic_.EndOfMessage(0, 2);
    }
  };
  for (int i = 1; i < 100; ++i) {
    Post(std::to_string(i));
    look();
  }
  while (synic_.queued_messages() > 0) look();
  guest.join();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(taken[i], std::to_string(i));
  EXPECT_EQ(Interrupts(), 100u);
}

TEST_F(DirectSynicTest, MessagesWaitWhileTheSynicIsDisabledOrMasked) {
  Post("a");
  Ready();
  synic_.SetRunning(true);
  const auto disabled = [&](SynicRegisters registers) {
    synic_.SetRegisters(0, registers);
    return Word(slot()).load() == 0 && synic_.queued_messages() == 1;
  };
  EXPECT_TRUE(disabled({}));
  EXPECT_TRUE(disabled({.scontrol = 0, .siefp = kEventPage | 1, .simp = kMessagePage | 1}));
  EXPECT_TRUE(disabled({.scontrol = 1, .siefp = kEventPage | 1, .simp = kMessagePage}));
  EXPECT_TRUE(disabled({.scontrol = 1, .simp = kMessagePage | 1, .sint2 = 0x10041}));
  EXPECT_TRUE(disabled({.scontrol = 1, .simp = 0x100000 | 1, .sint2 = 0x41}));  // outside RAM
  synic_.SetRegisters(0, kEnabled);
  EXPECT_EQ(Payload(), "a");
}

TEST_F(DirectSynicTest, MemoryThatGoesAndComesIsLookedUpAgain) {
  Enable();
  Post("a");
  Ready();
  ASSERT_TRUE(memory_.RemoveRegion(1).ok());
  synic_.MemoryChanged();
  EmptySlot();
  Post("b");
  synic_.SignalEvent(0, 1);  // lost: its page is gone
  EXPECT_EQ(synic_.queued_messages(), 1u);
  AddMemory(std::move(fd_));
  synic_.MemoryChanged();
  EXPECT_EQ(Payload(), "b");
}

TEST_F(DirectSynicTest, EventFlagInterruptsOnlyWhenItWasClear) {
  Enable();
  absl::Status ready = absl::UnknownError("not called");
  synic_.Acquire(0, 1, [&](const absl::Status& status) { ready = status; });
  Ready();
  EXPECT_TRUE(ready.ok());
  std::byte* const flags = ram_ + kEventPage + 2 * 256;
  synic_.SignalEvent(0, 37);
  EXPECT_EQ(flags[37 / 8], std::byte{1 << (37 % 8)});
  EXPECT_EQ(Interrupts(), 1u);
  synic_.SignalEvent(0, 37);
  EXPECT_EQ(Interrupts(), 0u);
  synic_.SignalEvent(0, 2047);
  EXPECT_EQ(flags[255], std::byte{0x80});
  EXPECT_EQ(Interrupts(), 1u);
  Word(flags + 4).store(0);
  synic_.SignalEvent(0, 37);
  EXPECT_EQ(Interrupts(), 1u);
}

TEST_F(DirectSynicTest, FullInterruptEventfdDoesNotBlock) {
  Enable();
  synic_.Acquire(0, 1, [](const absl::Status&) {});
  Ready();
  ASSERT_EQ(::fcntl(irq_.get(), F_SETFL, 0), 0);  // the peer clears O_NONBLOCK
  ASSERT_EQ(::eventfd_write(irq_.get(), 0xFFFFFFFFFFFFFFFE), 0);
  synic_.SignalEvent(0, 1);
  EXPECT_EQ(Interrupts(), 0xFFFFFFFFFFFFFFFEu);
}

TEST_F(DirectSynicTest, RefusedSourceDropsItsMessagesAndMayBeAskedForAgain) {
  Enable();
  Post("lost");
  absl::Status ready;
  synic_.Acquire(0, 1, [&](const absl::Status& status) { ready = status; });
  synic_.SintRefused(0, 2, absl::FailedPreconditionError("no"));
  EXPECT_TRUE(absl::IsFailedPrecondition(ready));
  EXPECT_EQ(synic_.queued_messages(), 0u);
  EXPECT_EQ(synic_.dropped_messages(), 1u);
  Post("kept");
  EXPECT_EQ(requested_.size(), 2u);
  Ready();
  EXPECT_EQ(Payload(), "kept");
}

// A VMM may hold a source back while its guest opens, resets and opens again.
TEST_F(DirectSynicTest, WaitersForASourceThatNeverComesAreBounded) {
  size_t refused = 0;
  size_t ready = 0;
  const auto on_ready = [&](const absl::Status& status) {
    ready += status.ok() ? 1 : 0;
    refused += absl::IsResourceExhausted(status) ? 1 : 0;
  };
  for (size_t i = 0; i < Synic::kWaitersMax; ++i) synic_.Acquire(0, 1, on_ready);
  EXPECT_EQ(refused, 0u);
  synic_.Acquire(0, 1, on_ready);
  EXPECT_EQ(refused, 1u);
  Ready();
  EXPECT_EQ(ready, Synic::kWaitersMax);
  synic_.Acquire(0, 1, on_ready);
  EXPECT_EQ(ready, Synic::kWaitersMax + 1);
  EXPECT_EQ(refused, 1u);
}

TEST_F(DirectSynicTest, IdleSourcesAreForgottenButUsedOnesAreNot) {
  std::vector<std::pair<uint32_t, uint8_t>> requested;
  DirectSynic many(
      memory_, [&](DirectSynic&, uint32_t vp, uint8_t sint) { requested.emplace_back(vp, sint); });
  many.SetRunning(true);
  many.Acquire(0, 1, [](const absl::Status&) {});
  many.SintReady(0, 2, UniqueFd(::eventfd(0, EFD_CLOEXEC)), nullptr);
  for (uint32_t vp = 1; vp < 200; ++vp) {
    many.Acquire(vp, 1, [](const absl::Status&) {});
    many.SintReady(vp, 2, UniqueFd(::eventfd(0, EFD_CLOEXEC)), nullptr);
    many.Release(vp, 1);
  }
  EXPECT_EQ(requested.size(), 200u);
  many.Acquire(1, 1, [](const absl::Status&) {});
  EXPECT_EQ(requested.size(), 201u);  // was forgotten
  many.Acquire(0, 1, [](const absl::Status&) {});
  EXPECT_EQ(requested.size(), 201u);  // was not
}

}  // namespace
}  // namespace vmbfs::hyperv
