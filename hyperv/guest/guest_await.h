// GuestDriver::Await, for the files that its members are spread over.

#pragma once

#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_driver.h"

namespace vmbfs::hyperv {

template <typename Message, typename Matches>
absl::StatusOr<Message> GuestDriver::Await(Deadline deadline, std::optional<uint32_t> channel_id,
                                           Matches matches) {
  const MessageType type = expected_;
  for (;;) {
    absl::StatusOr<TakenMessage> answer = NextAnswer(deadline, channel_id);
    if (!answer.ok()) return answer.status();
    Message message;
    if (answer->bytes < sizeof(message) ||
        (traits_.exact_sizes && answer->bytes != sizeof(message))) {
      Break(absl::StrCat("message of type ", static_cast<uint32_t>(type), " has ", answer->bytes,
                         " bytes, not ", sizeof(message)));
      return broken_;
    }
    std::memcpy(&message, answer->payload.data(), sizeof(message));
    if (matches(message)) {
      expected_ = MessageType::kInvalid;
      return message;
    }
    if (traits_.strict) {
      Break(absl::StrCat("message of type ", static_cast<uint32_t>(type), " for another request"));
      return broken_;
    }
  }
}

}  // namespace vmbfs::hyperv
