// One virtual processor's SynIC pages: the message slot and the event flags of
// VMBus' interrupt source, taken as a guest takes them.
//
// Trust: the server writes these pages; what it writes is checked.
// Format: shared/specs/vmbus.md 1.1 and 1.2.

#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

using EventFlags = std::bitset<kEventFlagsPerSint>;

// A message as it was taken from its slot.
struct TakenMessage {
  std::array<std::byte, kMessageBytesMax> payload{};
  size_t bytes = 0;
  bool end_of_message = false;  // the host waits for an EOM: write the register

  std::span<const std::byte> span() const { return {payload.data(), bytes}; }
};

// Thread safety: one thread; the pages themselves are shared with the server.
class GuestSynic {
 public:
  // The two pages must outlive it.
  GuestSynic(std::span<std::byte> message_page, std::span<std::byte> event_flags_page);

  // Takes the message of SINT 2 and empties its slot; nullopt when it is empty.
  // Errors: kDataLoss when the slot holds no VMBus message; it is emptied.
  absl::StatusOr<std::optional<TakenMessage>> TakeMessage();

  // Takes and clears the flags of SINT 2.
  EventFlags TakeEventFlags();

  // Empties both, as a reset of the processor does.
  void Reset();

 private:
  std::span<std::byte> slot_;
  std::span<std::byte> flags_;
};

}  // namespace vmbfs::hyperv
