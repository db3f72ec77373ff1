#include "hyperv/guest/guest_channel.h"

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {

absl::Status DriverChannel::WaitUntil(Deadline deadline) {
  if (!signalled_ && !revoked_) {
    if (absl::Status pumped = driver_.Pump(deadline); !pumped.ok()) return pumped;
  }
  signalled_ = false;
  if (revoked_) return absl::AbortedError("the channel's offer was revoked");
  return absl::OkStatus();
}

absl::Status DriverChannel::Send(std::span<const std::byte> message, Deadline deadline) {
  if (message.size() > pipe_.max_message_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("message of ", message.size(),
                                                   " bytes; at most ", pipe_.max_message_bytes(),
                                                   " fit the ring"));
  }
  for (;;) {
    absl::StatusOr<bool> written = pipe_.Write(message);
    if (!written.ok()) return written.status();
    if (*written) return absl::OkStatus();
    absl::StatusOr<bool> room = pipe_.ArmWrite(message.size());
    if (!room.ok()) return room.status();
    absl::Status waited = *room ? absl::OkStatus() : WaitUntil(deadline);
    pipe_.DisarmWrite();
    if (!waited.ok()) return waited;
  }
}

absl::StatusOr<std::span<std::byte>> DriverChannel::Exchange(std::span<const std::byte> message,
                                                             std::span<std::byte> buffer) {
  const Deadline deadline = driver_.NextDeadline();
  if (revoked_) return absl::AbortedError("the channel's offer was revoked");
  if (absl::Status sent = Send(message, deadline); !sent.ok()) return sent;
  for (;;) {
    absl::StatusOr<std::optional<std::span<std::byte>>> answer = pipe_.Read(buffer);
    if (!answer.ok()) return answer.status();
    if (*answer) {
      pipe_.Consume();
      return **answer;
    }
    absl::StatusOr<bool> waiting = pipe_.ArmRead();
    if (!waiting.ok()) return waiting.status();
    if (*waiting) continue;
    if (absl::Status waited = WaitUntil(deadline); !waited.ok()) return waited;
  }
}

}  // namespace vmbfs::hyperv
