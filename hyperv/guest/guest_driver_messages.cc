// GuestDriver's message pump: what the host left in the SynIC pages, and posts.

#include <algorithm>
#include <boost/endian/buffers.hpp>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "hyperv/guest/guest_driver.h"

namespace vmbfs::hyperv {

Deadline GuestDriver::NextDeadline() const {
  return std::min(std::chrono::steady_clock::now() + options_.timeout, options_.deadline);
}

absl::Status GuestDriver::Pump(Deadline deadline) {
  if (!broken_.ok()) return broken_;
  if (TakeAll()) return broken_;
  if (absl::Status waited = vmm_->Wait(deadline); !waited.ok()) return waited;
  TakeAll();
  return broken_;
}

// At most one message of each processor, as the slots hold; true when there
// was anything.
bool GuestDriver::TakeAll() {
  bool any = false;
  for (uint32_t vp = 0; vp < synics_.size(); ++vp) {
    absl::StatusOr<std::optional<TakenMessage>> message = synics_[vp].TakeMessage();
    if (!message.ok()) {
      Break(std::string(message.status().message()));
      return true;
    }
    if (*message) {
      any = true;
      if ((*message)->end_of_message) vmm_->EndOfMessage(vp);
      Dispatch(**message);
    }
    const EventFlags flags = synics_[vp].TakeEventFlags();
    if (flags.none()) continue;
    any = true;
    for (auto& [channel_id, channel] : channels_) {
      if (flags.test(channel_id)) channel->Signalled(vp);
    }
  }
  return any;
}

void GuestDriver::Dispatch(const TakenMessage& message) {
  MessageHeader header;
  if (message.bytes < sizeof(header)) return Break("message shorter than its header");
  std::memcpy(&header, message.payload.data(), sizeof(header));
  const auto type = static_cast<MessageType>(header.type.value());
  switch (phase_) {
    case Phase::kDisconnected:
      return;
    case Phase::kContacting:
    case Phase::kUnloading:
      if (type == expected_) HandleAnswer(type, message);
      return;
    case Phase::kEnumerating:
      if (traits_.strict && type != MessageType::kOfferChannel &&
          type != MessageType::kAllOffersDelivered) {
        return Break(absl::StrCat("message of type ", header.type.value(), " among the offers"));
      }
      break;
    case Phase::kConnected:
      break;
  }
  switch (type) {
    case MessageType::kOfferChannel:
      return HandleOffer(message);
    case MessageType::kRescindChannelOffer:
      return HandleRescind(message);
    case MessageType::kAllOffersDelivered:
      if (phase_ != Phase::kEnumerating) return Break("a second AllOffersDelivered");
      phase_ = Phase::kConnected;
      return;
    case MessageType::kVersionResponse:
    case MessageType::kOpenChannelResult:
    case MessageType::kGpadlCreated:
    case MessageType::kGpadlTorndown:
    case MessageType::kModifyChannelResponse:
      return HandleAnswer(type, message);
    default:
      return Break(absl::StrCat("message of type ", header.type.value(), " that no guest awaits"));
  }
}

void GuestDriver::HandleOffer(const TakenMessage& message) {
  OfferChannelMessage offer;
  if (message.bytes < sizeof(offer) || (traits_.exact_sizes && message.bytes != sizeof(offer))) {
    return Break(absl::StrCat("OfferChannel of ", message.bytes, " bytes"));
  }
  std::memcpy(&offer, message.payload.data(), sizeof(offer));
  const uint32_t channel_id = offer.channel_id.value();
  const bool known = rescinded_.contains(channel_id) ||
                     std::any_of(offers_.begin(), offers_.end(), [&](const GuestOffer& other) {
                       return other.channel_id == channel_id;
                     });
  if (channel_id == 0 || channel_id > kChannelIdMax || known) {
    return Break(absl::StrCat("offer with channel id ", channel_id,
                              known ? ", which the guest still holds" : ""));
  }
  std::optional<uint8_t> monitor_id;
  if ((offer.monitor_allocated & kOfferMonitorAllocated) != 0) monitor_id = offer.monitor_id;
  if (monitor_id.value_or(0) >= kMonitorIds) {
    return Break(absl::StrCat("offer with monitor id ", *monitor_id));
  }
  boost::endian::little_uint32_buf_t pipe_type;
  std::memcpy(&pipe_type, offer.user_defined.data(), sizeof(pipe_type));
  offers_.push_back({.channel_id = channel_id,
                     .connection_id = offer.connection_id.value(),
                     .interface_id = offer.interface_id,
                     .instance_id = offer.instance_id,
                     .flags = offer.flags.value(),
                     .pipe_type = pipe_type.value(),
                     .monitor_id = monitor_id});
}

void GuestDriver::HandleRescind(const TakenMessage& message) {
  ChannelIdMessage rescind;
  if (message.bytes < sizeof(rescind) ||
      (traits_.exact_sizes && message.bytes != sizeof(rescind))) {
    return Break(absl::StrCat("RescindChannelOffer of ", message.bytes, " bytes"));
  }
  std::memcpy(&rescind, message.payload.data(), sizeof(rescind));
  const uint32_t channel_id = rescind.channel_id.value();
  const size_t found = std::erase_if(
      offers_, [&](const GuestOffer& offer) { return offer.channel_id == channel_id; });
  if (found == 0) return Break(absl::StrCat("rescind of channel ", channel_id, ", not offered"));
  rescinded_.insert(channel_id);
  if (auto channel = channels_.find(channel_id); channel != channels_.end()) {
    channel->second->Revoke();
  }
}

void GuestDriver::HandleAnswer(MessageType type, const TakenMessage& message) {
  if (type == expected_ && answers_.size() < kAnswersMax) {
    answers_.push_back(message);
  } else if (traits_.strict) {
    Break(absl::StrCat("message of type ", static_cast<uint32_t>(type), " that nobody awaits"));
  }
}

void GuestDriver::Break(const std::string& reason) {
  if (broken_.ok()) broken_ = absl::DataLossError(absl::StrCat("VMBus: ", reason));
}

absl::Status GuestDriver::Post(const GuestMessage& message, Deadline deadline) {
  return PostTo(message_connection_, message, deadline);
}

absl::Status GuestDriver::PostTo(uint32_t connection, const GuestMessage& message,
                                 Deadline deadline) {
  for (;;) {
    const uint32_t status = vmm_->PostMessage(options_.message_vp, connection, message);
    if (status == kHypercallSuccess) return absl::OkStatus();
    if (status != kHypercallInsufficientBuffers) {
      return absl::FailedPreconditionError(
          absl::StrFormat("HvPostMessage to connection %d: status 0x%x", connection, status));
    }
    // The server takes posts again when we took its messages.
    if (absl::Status pumped = Pump(deadline); !pumped.ok()) return pumped;
  }
}

void GuestDriver::Expect(MessageType type) {
  expected_ = type;
  answers_.clear();
}

absl::StatusOr<TakenMessage> GuestDriver::NextAnswer(Deadline deadline,
                                                     std::optional<uint32_t> channel_id) {
  for (;;) {
    if (!answers_.empty()) {
      TakenMessage answer = answers_.front();
      answers_.pop_front();
      return answer;
    }
    if (channel_id && rescinded_.contains(*channel_id)) {
      return absl::AbortedError("the channel's offer was revoked");
    }
    if (absl::Status pumped = Pump(deadline); !pumped.ok()) return pumped;
  }
}

}  // namespace vmbfs::hyperv
