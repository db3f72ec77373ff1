// What both deliveries owe a guest, over DirectSynic with its pages and over
// MediatedSynic with a VMM that writes them.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/direct_synic.h"
#include "hyperv/link/mediated_synic.h"

namespace vmbfs::hyperv {
namespace {

UniqueFd NewEvent() { return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
UniqueFd Duplicate(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }
uint64_t Take(const UniqueFd& fd) {
  eventfd_t count = 0;
  return ::eventfd_read(fd.get(), &count) == 0 ? count : 0;
}

// VP 0 of a guest and its VMM, with pages for all SINTs.
class World {
 public:
  virtual ~World() = default;
  virtual Synic& synic() = 0;
  virtual void SetEnabled(bool enabled) = 0;
  // The VMM answers what it was asked; with `grant` false it refuses events.
  virtual void Settle(bool grant = true) = 0;
  // How often VP 0 was interrupted since the last look.
  virtual uint64_t Interrupts() = 0;

  // The guest's view.
  uint32_t SlotType(uint8_t sint = 2) { return Word(Slot(sint)).load(); }
  void FillSlot(uint32_t type) { Word(Slot(2)).store(type); }
  bool Pending() { return (Word(Slot(2) + 4).load() & 0x100) != 0; }
  std::string Text(uint8_t sint = 2) {
    std::string text(Word(Slot(sint) + 4).load() & 0xFF, '\0');
    CopyFromGuest(reinterpret_cast<std::byte*>(text.data()), Slot(sint) + 16, text.size());
    return text;
  }
  void EmptySlot(uint8_t sint = 2) { Word(Slot(sint)).store(0); }
  bool TakeFlag(uint32_t flag) {
    const uint32_t bit = uint32_t{1} << (flag % 32);
    return (Word(Flags() + flag / 32 * 4).fetch_and(~bit) & bit) != 0;
  }

 protected:
  static constexpr size_t kPages = 8;
  World() {
    fd_.reset(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_EQ(::ftruncate(fd_.get(), kPages * 4096), 0);
    EXPECT_EQ(::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    EXPECT_TRUE(memory_
                    .AddRegion({.id = 1, .gpa = 0, .bytes = kPages * 4096, .file_offset = 0},
                               Duplicate(fd_))
                    .ok());
    ram_ = *memory_.MapRange(0, kPages * 4096);
  }
  static std::atomic_ref<uint32_t> Word(std::byte* at) {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at));
  }
  std::byte* Slot(uint8_t sint) { return ram_.data + 4096 + sint * 256; }
  std::byte* Flags() { return ram_.data + 2 * 4096 + 2 * 256; }

  UniqueFd fd_;
  GuestMemory memory_;
  GuestRun ram_;
};

class DirectWorld final : public World {
 public:
  Synic& synic() override { return synic_; }
  void SetEnabled(bool enabled) override {
    synic_.SetRegisters(
        0, {.scontrol = enabled ? 1u : 0u, .siefp = 2 * 4096 | 1, .simp = 4096 | 1, .sint2 = 0x41});
  }
  void Settle(bool grant) override {
    for (const uint8_t sint : std::exchange(asked_, {})) {
      if (grant) {
        synic_.SintReady(0, sint, Duplicate(irq_), nullptr);
      } else {
        synic_.SintRefused(0, sint, absl::FailedPreconditionError("no"));
      }
    }
  }
  uint64_t Interrupts() override { return Take(irq_); }

 private:
  const UniqueFd irq_ = NewEvent();
  std::vector<uint8_t> asked_;
  DirectSynic synic_{memory_,
                     [this](DirectSynic&, uint32_t, uint8_t sint) { asked_.push_back(sint); }};
};

class MediatedWorld final : public World {
 public:
  Synic& synic() override { return synic_; }
  void SetEnabled(bool enabled) override {
    enabled_ = enabled;
    synic_.SetRegisters(0, {});
    Settle(true);
  }
  void Settle(bool grant) override {
    while (!sent_.empty()) {
      const auto [sint, text] = sent_.front();
      sent_.pop_front();
      EXPECT_TRUE(under_way_.erase(sint) == 1);
      synic_.MessageDone(0, sint, Deliver(sint, text));
    }
    for (const uint16_t flag : std::exchange(asked_, {})) {
      if (grant) {
        events_[flag] = NewEvent();
        synic_.EventReady(0, flag, Duplicate(events_[flag]));
      } else {
        synic_.EventRefused(0, flag, absl::FailedPreconditionError("no"));
      }
    }
    for (const auto& [flag, event] : events_) {
      const uint32_t bit = uint32_t{1} << (flag % 32);
      if (Take(event) == 0) continue;
      if ((Word(Flags() + flag / 32 * 4).fetch_or(bit) & bit) == 0) ++interrupts_;
    }
  }
  uint64_t Interrupts() override { return std::exchange(interrupts_, 0); }

 private:
  LinkMsgResult Deliver(uint8_t sint, const std::vector<std::byte>& text) {
    if (!enabled_) return LinkMsgResult::kNoMessagePage;
    if (SlotType(sint) != 0) {
      Word(Slot(sint) + 4).fetch_or(0x100);
      return LinkMsgResult::kBusy;
    }
    CopyToGuest(Slot(sint) + 16, text.data(), text.size());
    Word(Slot(sint) + 4).store(static_cast<uint32_t>(text.size()));
    Word(Slot(sint)).store(1);
    ++interrupts_;
    return LinkMsgResult::kDelivered;
  }

  bool enabled_ = false;
  uint64_t interrupts_ = 0;
  std::deque<std::pair<uint8_t, std::vector<std::byte>>> sent_;
  std::set<uint8_t> under_way_;
  std::vector<uint16_t> asked_;
  std::map<uint16_t, UniqueFd> events_;
  MediatedSynic synic_{
      [this](MediatedSynic&, uint32_t, uint8_t sint, std::span<const std::byte> message) {
        EXPECT_TRUE(under_way_.insert(sint).second) << "two at once";
        sent_.emplace_back(sint, std::vector<std::byte>(message.begin(), message.end()));
      },
      [this](MediatedSynic&, uint32_t, uint16_t flag) { asked_.push_back(flag); }};
};

class SynicConformance : public ::testing::TestWithParam<uint32_t> {
 protected:
  SynicConformance() {
    if (GetParam() == kLinkDeliveryDirect) {
      world_ = std::make_unique<DirectWorld>();
    } else {
      world_ = std::make_unique<MediatedWorld>();
    }
  }
  void Enable() {
    world_->synic().SetRunning(true);
    world_->SetEnabled(true);
  }
  void Post(const std::string& text, uint8_t sint = 2) {
    world_->synic().PostMessage(0, sint, std::as_bytes(std::span(text)));
    world_->Settle();
  }
  void EndOfMessage(uint8_t sint = 2) {
    world_->synic().EndOfMessage(0, sint);
    world_->Settle();
  }
  void Signal(uint16_t flag) {
    world_->synic().SignalEvent(0, flag);
    world_->Settle();
  }
  size_t queued() { return world_->synic().queued_messages(); }

  std::unique_ptr<World> world_;
};

std::string DeliveryName(const ::testing::TestParamInfo<uint32_t>& delivery) {
  return delivery.param == kLinkDeliveryDirect ? "Direct" : "Mediated";
}

INSTANTIATE_TEST_SUITE_P(Deliveries, SynicConformance,
                         ::testing::Values(kLinkDeliveryDirect, kLinkDeliveryMediated),
                         DeliveryName);

TEST_P(SynicConformance, MessageFillsItsSlotAndInterrupts) {
  Enable();
  Post("hello");
  EXPECT_EQ(world_->SlotType(), 1u);
  EXPECT_EQ(world_->Text(), "hello");
  EXPECT_EQ(world_->Interrupts(), 1u);
  EXPECT_EQ(queued(), 0u);
}

TEST_P(SynicConformance, BusySlotIsMarkedAndNotOverwritten) {
  Enable();
  Post("first");
  EXPECT_FALSE(world_->Pending());
  Post("second");
  EXPECT_TRUE(world_->Pending());
  EXPECT_EQ(world_->Text(), "first");
  EXPECT_EQ(queued(), 1u);
  EndOfMessage();  // of a guest that writes EOM though the slot is full
  EXPECT_EQ(world_->Text(), "first");
  world_->EmptySlot();
  EndOfMessage();
  EXPECT_EQ(world_->Text(), "second");
  EXPECT_EQ(world_->Interrupts(), 2u);
}

TEST_P(SynicConformance, ForeignMessageIsRespected) {
  Enable();
  world_->FillSlot(0x80000010);  // the hypervisor's timer message
  Post("mine");
  EXPECT_EQ(world_->SlotType(), 0x80000010u);
  EXPECT_TRUE(world_->Pending());
  world_->EmptySlot();
  EndOfMessage();
  EXPECT_EQ(world_->Text(), "mine");
}

TEST_P(SynicConformance, HundredMessagesArriveInOrder) {
  Enable();
  for (int i = 0; i < 100; ++i) Post(std::to_string(i));
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(world_->Text(), std::to_string(i));
    world_->EmptySlot();
    EndOfMessage();
  }
  EXPECT_EQ(world_->SlotType(), 0u);
  EXPECT_EQ(world_->Interrupts(), 100u);
}

TEST_P(SynicConformance, SlotEmptiedWithoutEndOfMessageIsFoundByRetry) {
  Enable();
  Post("first");
  Post("second");
  world_->synic().Retry();
  world_->Settle();
  EXPECT_EQ(world_->Text(), "first");
  world_->EmptySlot();
  EXPECT_EQ(world_->SlotType(), 0u);
  world_->synic().Retry();
  world_->Settle();
  EXPECT_EQ(world_->Text(), "second");
}

TEST_P(SynicConformance, MessagesWaitWhileTheSynicIsDisabled) {
  world_->synic().SetRunning(true);
  world_->SetEnabled(false);
  Post("patient");
  EndOfMessage();
  EXPECT_EQ(world_->SlotType(), 0u);
  EXPECT_EQ(queued(), 1u);
  world_->SetEnabled(true);
  world_->Settle();
  EXPECT_EQ(world_->Text(), "patient");
}

TEST_P(SynicConformance, SourcesDoNotHoldEachOtherUp) {
  Enable();
  Post("a");
  Post("b");
  Post("c", 5);
  EXPECT_EQ(world_->Text(5), "c");
  EXPECT_EQ(world_->Text(), "a");
  EXPECT_EQ(queued(), 1u);
}

TEST_P(SynicConformance, NothingHappensWhileNotRunning) {
  Enable();
  world_->synic().Acquire(0, 5, [](const absl::Status&) {});
  world_->Settle();
  world_->synic().SetRunning(false);
  Post("a");
  Signal(5);
  EndOfMessage();
  world_->synic().Retry();
  world_->Settle();
  EXPECT_EQ(world_->SlotType(), 0u);
  EXPECT_FALSE(world_->TakeFlag(5));
  EXPECT_EQ(world_->Interrupts(), 0u);
  world_->synic().SetRunning(true);
  world_->Settle();
  EXPECT_EQ(world_->Text(), "a");
}

TEST_P(SynicConformance, DroppedMessagesDoNotCome) {
  Enable();
  Post("first");
  Post("b");
  Post("c", 5);
  world_->EmptySlot(5);
  Post("d", 5);
  world_->synic().DropMessages();
  EXPECT_EQ(queued(), 0u);
  EXPECT_GE(world_->synic().dropped_messages(), 1u);
  world_->EmptySlot();
  EndOfMessage();
  EXPECT_EQ(world_->SlotType(), 0u);
  Post("after");
  EXPECT_EQ(world_->Text(), "after");
}

TEST_P(SynicConformance, EventFlagInterruptsOnlyWhenItWasClear) {
  Enable();
  absl::Status ready = absl::UnknownError("not called");
  world_->synic().Acquire(0, 37, [&](const absl::Status& status) { ready = status; });
  EXPECT_TRUE(absl::IsUnknown(ready));
  world_->Settle();
  EXPECT_TRUE(ready.ok());
  Signal(37);
  EXPECT_EQ(world_->Interrupts(), 1u);
  Signal(37);
  EXPECT_EQ(world_->Interrupts(), 0u);
  EXPECT_TRUE(world_->TakeFlag(37));
  Signal(37);
  EXPECT_EQ(world_->Interrupts(), 1u);
}

TEST_P(SynicConformance, RefusedEventIsToldAndMayBeAskedForAgain) {
  Enable();
  absl::Status ready;
  world_->synic().Acquire(0, 37, [&](const absl::Status& status) { ready = status; });
  world_->Settle(/*grant=*/false);
  EXPECT_TRUE(absl::IsFailedPrecondition(ready));
  world_->synic().Acquire(0, 37, [&](const absl::Status& status) { ready = status; });
  world_->Settle();
  EXPECT_TRUE(ready.ok());
}

TEST_P(SynicConformance, EventIsSharedAndStaysUntilTheLastRelease) {
  Enable();
  const auto acquire = [&] {
    absl::Status ready = absl::UnknownError("not called");
    world_->synic().Acquire(0, 37, [&](const absl::Status& status) { ready = status; });
    world_->Settle();
    return ready.ok();
  };
  // One that gives up before it is ready releases it then.
  world_->synic().Acquire(0, 37, [&](const absl::Status&) { world_->synic().Release(0, 37); });
  world_->Settle();
  EXPECT_TRUE(acquire());
  EXPECT_TRUE(acquire());
  world_->synic().Release(0, 37);
  Signal(37);
  EXPECT_TRUE(world_->TakeFlag(37));
}

}  // namespace
}  // namespace vmbfs::hyperv
