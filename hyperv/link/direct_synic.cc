#include "hyperv/link/direct_synic.h"

#include <array>
#include <bit>

#include "absl/strings/str_cat.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/event_fd.h"

namespace vmbfs::hyperv {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kRegisterEnabled = 1;
constexpr uint64_t kRegisterPageMask = ~uint64_t{kPageBytes - 1};
constexpr uint64_t kSintMasked = uint64_t{1} << 16;

// Of a message slot, and of one source's event flags.
constexpr size_t kSlotBytes = 256;
constexpr size_t kSlotTypeOffset = 0;
constexpr size_t kSlotLengthAndFlagsOffset = 4;  // u8 length, u8 flags, u16 reserved
constexpr size_t kSlotSenderOffset = 8;
constexpr size_t kSlotPayloadOffset = 16;
constexpr uint32_t kSlotPendingFlag = 0x100;  // bit 0 of the flags, in that word

void FillSlot(std::byte* guest_page, size_t slot, std::span<const std::byte> message) {
  constexpr std::array<std::byte, sizeof(uint64_t)> kNoSender{};
  CopyToGuest(guest_page + slot + kSlotSenderOffset, kNoSender.data(), kNoSender.size());
  CopyToGuest(guest_page + slot + kSlotPayloadOffset, message.data(), message.size());
  StoreGuestWord(guest_page + slot + kSlotLengthAndFlagsOffset,
                 static_cast<uint32_t>(message.size()), std::memory_order_relaxed);
  StoreGuestWord(guest_page + slot + kSlotTypeOffset, kSynicVmbusMessageType,
                 std::memory_order_release);
}

// Whether the slot is empty; if it is not, the guest is asked for an EOM.
bool SlotIsEmpty(std::byte* guest_page, size_t slot) {
  std::byte* const type = guest_page + slot + kSlotTypeOffset;
  if (LoadGuestWord(type, std::memory_order_acquire) == 0) return true;
  FetchOrGuestWord(guest_page + slot + kSlotLengthAndFlagsOffset, kSlotPendingFlag,
                   std::memory_order_seq_cst);
  // The guest empties the slot, fences, then looks at the flag: either it sees
  // the flag and writes EOM, or the slot is seen empty here. Both accesses are
  // sequentially consistent, which is the fence of our side.
  return LoadGuestWord(type, std::memory_order_seq_cst) == 0;
}

}  // namespace

DirectSynic::DirectSynic(const GuestMemory& memory, RequestSint request_sint)
    : memory_(memory), request_sint_(std::move(request_sint)) {}

void DirectSynic::SetRunning(bool running) {
  running_ = running;
  DeliverAll();
}

void DirectSynic::SetRegisters(uint32_t vp, const SynicRegisters& registers) {
  Vp& state = vps_[vp];
  state.registers = registers;
  Resolve(state);
  DeliverAll();
}

void DirectSynic::MemoryChanged() {
  for (auto& [number, vp] : vps_) Resolve(vp);
  DeliverAll();
}

void DirectSynic::Resolve(Vp& vp) {
  const bool enabled = (vp.registers.scontrol & kRegisterEnabled) != 0;
  const auto page_of = [&](uint64_t page_register) -> GuestRun {
    if (!enabled || (page_register & kRegisterEnabled) == 0) return {};
    absl::StatusOr<GuestRun> run = memory_.MapRange(page_register & kRegisterPageMask, kPageBytes);
    return run.ok() ? *std::move(run) : GuestRun{};
  };
  vp.message_page = page_of(vp.registers.simp);
  vp.event_flags_page = page_of(vp.registers.siefp);
}

bool DirectSynic::Masked(const Vp& vp, uint8_t sint) const {
  return sint == kSynicVmbusSint && (vp.registers.sint2 & kSintMasked) != 0;
}

void DirectSynic::PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  const SintKey key{vp, sint};
  Sint& source = FindOrRequest(key);
  source.messages.emplace_back(message.begin(), message.end());
  ++queued_messages_;
  Deliver(key, source);
}

void DirectSynic::EndOfMessage(uint32_t vp, uint8_t sint) {
  if (const auto found = sints_.find({vp, sint}); found != sints_.end()) {
    Deliver(found->first, found->second);
  }
}

void DirectSynic::DeliverAll() {
  for (auto& [key, sint] : sints_) Deliver(key, sint);
}

void DirectSynic::Deliver(const SintKey& key, Sint& sint) {
  if (!running_ || !sint.irq) return;
  const auto found = vps_.find(key.first);
  if (found == vps_.end() || Masked(found->second, key.second)) return;
  std::byte* const guest_page = found->second.message_page.data;
  if (guest_page == nullptr) return;
  const size_t slot = key.second * kSlotBytes;
  const VanishedMemoryWatch watch;
  // A second message behind the first finds the slot full and marks it.
  while (!sint.messages.empty() && SlotIsEmpty(guest_page, slot)) {
    FillSlot(guest_page, slot, sint.messages.front());
    if (!memory_.CheckVanished(watch).ok()) {
      found->second.message_page = {};  // the message waits
      return;
    }
    sint.messages.pop_front();
    --queued_messages_;
    NotifyEventFd(sint.irq);
  }
}

void DirectSynic::DropMessagesOf(Sint& sint) {
  queued_messages_ -= sint.messages.size();
  dropped_messages_ += sint.messages.size();
  sint.messages.clear();
}

void DirectSynic::DropMessages() {
  for (auto& [key, sint] : sints_) DropMessagesOf(sint);
}

void DirectSynic::Acquire(uint32_t vp, uint16_t, OnReady on_ready) {
  Sint& sint = FindOrRequest({vp, kSynicVmbusSint});
  if (sint.irq) {
    ++sint.users;
    on_ready(absl::OkStatus());
  } else if (waiters_ < kWaitersMax) {
    ++sint.users;
    ++waiters_;
    sint.waiting.push_back(std::move(on_ready));
  } else {
    on_ready(TooManyWaiters());
  }
}

void DirectSynic::Release(uint32_t vp, uint16_t) {
  const auto found = sints_.find({vp, kSynicVmbusSint});
  if (found != sints_.end() && found->second.users > 0) --found->second.users;
}

void DirectSynic::SignalEvent(uint32_t vp, uint16_t flag) {
  if (!running_) return;
  const auto state = vps_.find(vp);
  const auto sint = sints_.find({vp, kSynicVmbusSint});
  if (state == vps_.end() || sint == sints_.end() || !sint->second.irq) return;
  std::byte* const guest_page = state->second.event_flags_page.data;
  if (guest_page == nullptr || Masked(state->second, kSynicVmbusSint)) return;
  const uint32_t bit = uint32_t{1} << (flag % 32);
  const size_t word = kSynicVmbusSint * kSlotBytes + flag / 32 * sizeof(uint32_t);
  const VanishedMemoryWatch watch;
  const uint32_t before = FetchOrGuestWord(guest_page + word, bit, std::memory_order_seq_cst);
  if (!memory_.CheckVanished(watch).ok()) {
    state->second.event_flags_page = {};
  } else if ((before & bit) == 0) {
    NotifyEventFd(sint->second.irq);
  }
}

DirectSynic::Sint& DirectSynic::FindOrRequest(const SintKey& key) {
  if (const auto found = sints_.find(key); found != sints_.end()) return found->second;
  if (sints_.size() >= kIdleSintsMax) ForgetIdle();
  Sint& sint = sints_[key];
  request_sint_(*this, key.first, key.second);
  return sint;
}

// A guest may walk through all processors and sources; each costs descriptors.
void DirectSynic::ForgetIdle() {
  std::erase_if(sints_, [](const auto& entry) {
    const Sint& sint = entry.second;
    return sint.irq && sint.users == 0 && sint.messages.empty();
  });
}

void DirectSynic::SintReady(uint32_t vp, uint8_t sint, UniqueFd irq, std::shared_ptr<void> ack) {
  const auto found = sints_.find({vp, sint});
  if (found == sints_.end()) return;
  Sint& source = found->second;
  source.irq = std::move(irq);
  source.ack = std::move(ack);
  for (const OnReady& on_ready : TakeWaiters(source.waiting)) on_ready(absl::OkStatus());
  EndOfMessage(vp, sint);
}

void DirectSynic::SintRefused(uint32_t vp, uint8_t sint, const absl::Status& reason) {
  const auto found = sints_.find({vp, sint});
  if (found == sints_.end()) return;
  const std::vector<OnReady> waiting = TakeWaiters(found->second.waiting);
  DropMessagesOf(found->second);
  sints_.erase(found);
  for (const OnReady& on_ready : waiting) on_ready(reason);
}

}  // namespace vmbfs::hyperv
