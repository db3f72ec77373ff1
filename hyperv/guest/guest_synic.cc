#include "hyperv/guest/guest_synic.h"

#include <atomic>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kSlotBytes = 256;
constexpr size_t kFlagsBytes = kEventFlagsPerSint / 8;
constexpr size_t kLengthOffset = 4;
constexpr size_t kFlagsOffset = 5;
constexpr size_t kPayloadOffset = 16;
constexpr std::byte kMessagePending{1};
constexpr uint32_t kTypeNone = 0;

// The slot is page-aligned RAM of our own; its first word is a u32.
std::atomic_ref<uint32_t> SlotType(std::span<std::byte> slot) {
  return std::atomic_ref<uint32_t>(*static_cast<uint32_t*>(static_cast<void*>(slot.data())));
}

std::byte LoadByte(std::span<std::byte> slot, size_t offset) {
  return std::atomic_ref<std::byte>(slot[offset]).load();
}

}  // namespace

GuestSynic::GuestSynic(std::span<std::byte> message_page, std::span<std::byte> event_flags_page)
    : slot_(message_page.subspan(kVmbusSint * kSlotBytes, kSlotBytes)),
      flags_(event_flags_page.subspan(kVmbusSint * kFlagsBytes, kFlagsBytes)) {}

absl::StatusOr<std::optional<TakenMessage>> GuestSynic::TakeMessage() {
  const uint32_t type = SlotType(slot_).load(std::memory_order_acquire);
  if (type == kTypeNone) return std::nullopt;
  TakenMessage message;
  message.bytes = std::to_integer<size_t>(LoadByte(slot_, kLengthOffset));
  const bool valid = type == kSynicMessageType && message.bytes <= kMessageBytesMax;
  if (valid) std::memcpy(message.payload.data(), &slot_[kPayloadOffset], message.bytes);
  // The host sets the pending bit and looks at the type again; we empty the
  // slot and look at the bit. Both in sequentially consistent order, so that
  // one of the two sees the other.
  SlotType(slot_).exchange(kTypeNone);
  message.end_of_message = (LoadByte(slot_, kFlagsOffset) & kMessagePending) == kMessagePending;
  if (!valid) {
    return absl::DataLossError(absl::StrCat("message slot holds type ", type, ", length ",
                                            message.bytes, "; type 1 and at most ",
                                            kMessageBytesMax, " bytes are expected"));
  }
  return message;
}

EventFlags GuestSynic::TakeEventFlags() {
  EventFlags taken;
  for (size_t index = 0; index < flags_.size(); ++index) {
    std::atomic_ref<std::byte> flags(flags_[index]);
    if (flags.load(std::memory_order_relaxed) == std::byte{0}) continue;
    const auto bits = std::to_integer<unsigned>(flags.exchange(std::byte{0}));
    for (size_t bit = 0; bit < 8; ++bit) {
      if ((bits >> bit & 1) != 0) taken.set(index * 8 + bit);
    }
  }
  return taken;
}

void GuestSynic::Reset() {
  std::memset(slot_.data(), 0, slot_.size());
  std::memset(flags_.data(), 0, flags_.size());
}

}  // namespace vmbfs::hyperv
