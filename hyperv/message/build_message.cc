#include <span>

#include "hyperv/message/message.h"

namespace vmbfs::hyperv {
namespace {

template <typename Message>
Message NewMessage(MessageType type) {
  Message message{};
  message.header.type = static_cast<uint32_t>(type);
  return message;
}

template <typename Message>
HostMessage BytesOf(const Message& message) {
  static_assert(sizeof(Message) <= kMessageBytesMax);
  const auto bytes = std::as_bytes(std::span(&message, 1));
  return HostMessage(bytes.begin(), bytes.end());
}

HostMessage BuildHeaderOnly(MessageType type) {
  return BytesOf(NewMessage<HeaderOnlyMessage>(type));
}

}  // namespace

HostMessage BuildVersionUnsupported() {
  return BytesOf(NewMessage<VersionResponseMessage>(MessageType::kVersionResponse));
}

HostMessage BuildVersionResponse(const Protocol& protocol, uint8_t connection_state) {
  VersionResponse2Message message{};
  message.response = NewMessage<VersionResponseMessage>(MessageType::kVersionResponse);
  message.response.version_supported = 1;
  message.response.connection_state = connection_state;
  message.response.message_connection_id =
      protocol.version < kVersion5_0 ? protocol.version : kMessageConnection;
  if (protocol.version < kVersion6_0) return BytesOf(message.response);
  message.supported_features = protocol.features;
  return BytesOf(message);
}

HostMessage BuildOfferChannel(const OfferContents& offer) {
  auto message = NewMessage<OfferChannelMessage>(MessageType::kOfferChannel);
  message.interface_id = offer.interface_id;
  message.instance_id = offer.instance_id;
  message.flags = offer.flags;
  message.user_defined = offer.user_defined;
  message.subchannel_index = offer.subchannel_index;
  message.channel_id = offer.channel_id;
  message.monitor_id = offer.monitor_id.value_or(kMonitorIdNone);
  if (offer.monitor_id.has_value()) message.monitor_allocated = kOfferMonitorAllocated;
  message.dedicated_interrupt = kOfferDedicatedInterrupt;
  message.connection_id = offer.connection_id;
  return BytesOf(message);
}

HostMessage BuildRescindChannelOffer(uint32_t channel_id) {
  auto message = NewMessage<ChannelIdMessage>(MessageType::kRescindChannelOffer);
  message.channel_id = channel_id;
  return BytesOf(message);
}

HostMessage BuildAllOffersDelivered() { return BuildHeaderOnly(MessageType::kAllOffersDelivered); }

HostMessage BuildOpenChannelResult(uint32_t channel_id, uint32_t open_id, uint32_t status) {
  auto message = NewMessage<OpenChannelResultMessage>(MessageType::kOpenChannelResult);
  message.channel_id = channel_id;
  message.open_id = open_id;
  message.status = status;
  return BytesOf(message);
}

HostMessage BuildGpadlCreated(uint32_t channel_id, uint32_t gpadl_id, uint32_t status) {
  auto message = NewMessage<GpadlCreatedMessage>(MessageType::kGpadlCreated);
  message.channel_id = channel_id;
  message.gpadl_id = gpadl_id;
  message.status = status;
  return BytesOf(message);
}

HostMessage BuildGpadlTorndown(uint32_t gpadl_id) {
  auto message = NewMessage<GpadlTorndownMessage>(MessageType::kGpadlTorndown);
  message.gpadl_id = gpadl_id;
  return BytesOf(message);
}

HostMessage BuildUnloadComplete() { return BuildHeaderOnly(MessageType::kUnloadComplete); }

HostMessage BuildModifyChannelResponse(uint32_t channel_id, uint32_t status) {
  auto message = NewMessage<ModifyChannelResponseMessage>(MessageType::kModifyChannelResponse);
  message.channel_id = channel_id;
  message.status = status;
  return BytesOf(message);
}

HostMessage BuildModifyConnectionResponse(uint8_t connection_state) {
  auto message =
      NewMessage<ModifyConnectionResponseMessage>(MessageType::kModifyConnectionResponse);
  message.connection_state = connection_state;
  return BytesOf(message);
}

HostMessage BuildPauseResponse() { return BuildHeaderOnly(MessageType::kPauseResponse); }

HostMessage BuildSocketConnectResult(const SocketConnectRequest& request, uint32_t status) {
  auto message = NewMessage<TlConnectRequestResultMessage>(MessageType::kTlConnectRequestResult);
  message.endpoint_id = request.endpoint_id;
  message.service_id = request.service_id;
  message.status = status;
  return BytesOf(message);
}

}  // namespace vmbfs::hyperv
