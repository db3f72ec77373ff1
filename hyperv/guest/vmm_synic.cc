#include "hyperv/guest/vmm_synic.h"

#include <atomic>
#include <cstring>

#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kSlotBytes = 256;
constexpr size_t kFlagsBytes = kEventFlagsPerSint / 8;
constexpr size_t kLengthOffset = 4;
constexpr size_t kFlagsOffset = 5;
constexpr size_t kSenderOffset = 8;
constexpr size_t kPayloadOffset = 16;
constexpr uint8_t kMessagePending = 1;
constexpr uint32_t kTypeNone = 0;

// Slots are aligned; their first word is a u32.
std::atomic_ref<uint32_t> SlotType(std::span<std::byte> slot) {
  return std::atomic_ref<uint32_t>(*static_cast<uint32_t*>(static_cast<void*>(slot.data())));
}

std::atomic_ref<uint8_t> Byte(std::byte& byte) {
  return std::atomic_ref<uint8_t>(*static_cast<uint8_t*>(static_cast<void*>(&byte)));
}

}  // namespace

void VmmSynic::SetRegisters(uint32_t vp, const SynicRegisters& registers) {
  const bool on = (registers.scontrol & kSynicEnabled) != 0 && (registers.sint2 & kSintMasked) == 0;
  const auto page = [&](uint64_t value) -> uint64_t {
    const uint64_t gpa = value / kPageBytes * kPageBytes;
    return on && (value & kSynicEnabled) != 0 && gpa < ram_.bytes().size() ? gpa : 0;
  };
  processors_[vp] = {.messages = page(registers.simp), .event_flags = page(registers.siefp)};
}

LinkMsgResult VmmSynic::Deliver(uint32_t vp, uint32_t sint, uint32_t type,
                                std::span<const std::byte> payload) {
  if (vp >= processors_.size() || sint >= kLinkSints || processors_[vp].messages == 0) {
    return LinkMsgResult::kNoMessagePage;
  }
  const std::span<std::byte> slot =
      ram_.bytes().subspan(processors_[vp].messages + sint * kSlotBytes, kSlotBytes);
  if (SlotType(slot).load(std::memory_order_acquire) != kTypeNone) {
    // The guest empties the slot and looks at the bit; we set the bit and look
    // at the slot again. In sequentially consistent order one sees the other.
    Byte(slot[kFlagsOffset]).fetch_or(kMessagePending);
    if (SlotType(slot).load() != kTypeNone) return LinkMsgResult::kBusy;
  }
  Byte(slot[kFlagsOffset]).store(0, std::memory_order_relaxed);
  slot[kLengthOffset] = static_cast<std::byte>(payload.size());
  std::memset(&slot[kSenderOffset], 0, kPayloadOffset - kSenderOffset);
  if (!payload.empty()) std::memcpy(&slot[kPayloadOffset], payload.data(), payload.size());
  SlotType(slot).store(type, std::memory_order_release);
  return LinkMsgResult::kDelivered;
}

bool VmmSynic::SetEventFlag(uint32_t vp, uint32_t flag) {
  if (vp >= processors_.size() || flag >= kEventFlagsPerSint || processors_[vp].event_flags == 0) {
    return false;
  }
  const uint64_t offset = processors_[vp].event_flags + kVmbusSint * kFlagsBytes + flag / 8;
  const auto bit = static_cast<uint8_t>(1u << flag % 8);
  return (Byte(ram_.bytes()[offset]).fetch_or(bit) & bit) == 0;
}

}  // namespace vmbfs::hyperv
