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

template <typename Write>
absl::Status DriverChannel::WhenRoom(size_t bytes, Deadline deadline, Write write) {
  if (revoked_) return absl::AbortedError("the channel's offer was revoked");
  if (bytes > pipe_.max_message_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("message of ", bytes, " bytes; at most ",
                                                   pipe_.max_message_bytes(), " fit the ring"));
  }
  for (;;) {
    absl::StatusOr<bool> written = write();
    if (!written.ok()) return written.status();
    if (*written) return absl::OkStatus();
    absl::StatusOr<bool> room = pipe_.ArmWrite(bytes);
    if (!room.ok()) return room.status();
    absl::Status waited = *room ? absl::OkStatus() : WaitUntil(deadline);
    pipe_.DisarmWrite();
    if (!waited.ok()) return waited;
  }
}

absl::Status DriverChannel::SendDeferred(PipeMessageType type, std::span<const std::byte> data) {
  return WhenRoom(data.size(), driver_.NextDeadline(),
                  [&] { return pipe_.WriteDeferred(type, data); });
}

absl::StatusOr<std::span<std::byte>> DriverChannel::Exchange(std::span<const std::byte> message,
                                                             std::span<std::byte> buffer) {
  const Deadline deadline = driver_.NextDeadline();
  absl::Status sent = WhenRoom(message.size(), deadline, [&] { return pipe_.Write(message); });
  if (!sent.ok()) return sent;
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
