#include "hyperv/message/message.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// What a guest may send: its least size, and since when (section 2.1).
struct Form {
  MessageType type;
  size_t bytes_min;
  uint32_t version_min;  // 0: legal before anything is negotiated
  uint32_t features;     // all of them must have been agreed on
};

constexpr Form kForms[] = {
    {MessageType::kRequestOffers, sizeof(HeaderOnlyMessage), kVersionV1, 0},
    {MessageType::kOpenChannel, sizeof(OpenChannelMessage), kVersionV1, 0},
    {MessageType::kCloseChannel, sizeof(ChannelIdMessage), kVersionV1, 0},
    {MessageType::kGpadlHeader, sizeof(GpadlHeaderMessage), kVersionV1, 0},
    {MessageType::kGpadlBody, sizeof(GpadlBodyMessage), kVersionV1, 0},
    {MessageType::kGpadlTeardown, sizeof(GpadlTeardownMessage), kVersionV1, 0},
    {MessageType::kRelIdReleased, sizeof(ChannelIdMessage), kVersionV1, 0},
    {MessageType::kInitiateContact, sizeof(InitiateContactMessage), 0, 0},
    {MessageType::kUnload, sizeof(HeaderOnlyMessage), kVersionV1, 0},
    {MessageType::kOpenReservedChannel, sizeof(OpenReservedChannelMessage), kVersion4_0, 0},
    {MessageType::kCloseReservedChannel, sizeof(CloseReservedChannelMessage), 0, 0},
    {MessageType::kTlConnectRequest, sizeof(TlConnectRequestMessage), kVersion4_0, 0},
    {MessageType::kModifyChannel, sizeof(ModifyChannelMessage), kVersion4_1, 0},
    {MessageType::kModifyConnection, sizeof(ModifyConnectionMessage), kVersion6_0,
     kFeatureModifyConnection},
    {MessageType::kPause, sizeof(HeaderOnlyMessage), kVersion6_0, kFeaturePauseResume},
    {MessageType::kResume, sizeof(HeaderOnlyMessage), kVersion6_0, kFeaturePauseResume},
};

template <typename Message>
Message Copy(std::span<const std::byte> bytes) {
  Message message;
  std::memcpy(&message, bytes.data(), sizeof(message));
  return message;
}

// Checks size, type, version and features; everything that does not need the
// message's own fields.
absl::StatusOr<MessageType> CheckForm(std::span<const std::byte> message,
                                      const std::optional<Protocol>& protocol) {
  if (message.size() < sizeof(MessageHeader) || message.size() > kMessageBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("message is ", message.size(), " bytes; 8 to 240 are allowed"));
  }
  const uint32_t guest_type = Copy<MessageHeader>(message).type.value();
  const auto form = std::find_if(std::begin(kForms), std::end(kForms), [&](const Form& each) {
    return static_cast<uint32_t>(each.type) == guest_type;
  });
  if (form == std::end(kForms)) {
    return absl::InvalidArgumentError(
        absl::StrCat("message type ", guest_type, " is none that a guest sends"));
  }
  if (message.size() < form->bytes_min) {
    return absl::InvalidArgumentError(absl::StrCat("message type ", guest_type, " is ",
                                                   message.size(), " bytes; at least ",
                                                   form->bytes_min, " are needed"));
  }
  if (form->version_min == 0) return form->type;
  if (!protocol.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("message type ", guest_type, " while not connected"));
  }
  if (protocol->version < form->version_min ||
      (protocol->features & form->features) != form->features) {
    return absl::InvalidArgumentError(absl::StrCat("message type ", guest_type,
                                                   " is not negotiated at version ",
                                                   VersionText(protocol->version)));
  }
  return form->type;
}

absl::StatusOr<GuestRequest> ParseContact(std::span<const std::byte> bytes) {
  const auto message = Copy<InitiateContactMessage>(bytes);
  ContactRequest request;
  request.version = message.version.value();
  if (request.version >= kVersion3_0) request.target_vp = message.target_vp.value();
  if (request.version >= kVersion5_0) request.target_sint = message.target_sint;
  if (request.version >= kVersion5_1) request.target_vtl = message.target_vtl;
  if (request.version >= kVersion6_0) request.features = message.feature_flags.value();
  request.monitor_pages = {message.parent_to_child_monitor_page_gpa.value(),
                           message.child_to_parent_monitor_page_gpa.value()};
  if ((request.features & kFeatureClientId) != 0) {
    if (bytes.size() < sizeof(InitiateContact2Message)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "InitiateContact with a client id is ", bytes.size(), " bytes; at least 56 are needed"));
    }
    request.client_id = Copy<InitiateContact2Message>(bytes).client_id;
  }
  return request;
}

absl::StatusOr<GuestRequest> ParseOpen(std::span<const std::byte> bytes, uint32_t features) {
  const auto message = Copy<OpenChannelMessage>(bytes);
  OpenChannelRequest request{.channel_id = message.channel_id.value(),
                             .open_id = message.open_id.value(),
                             .ring_gpadl_id = message.ring_gpadl_id.value(),
                             .target_vp = message.target_vp.value(),
                             .downstream_page_offset = message.downstream_page_offset.value()};
  // Without it the firmware's messages have a tail too, of zeros without meaning.
  if ((features & kFeatureGuestSignalParameters) != 0) {
    if (bytes.size() < sizeof(OpenChannel2Message)) {
      return absl::InvalidArgumentError(absl::StrCat("OpenChannel with signal parameters is ",
                                                     bytes.size(),
                                                     " bytes; at least 156 are needed"));
    }
    const auto tail = Copy<OpenChannel2Message>(bytes);
    request.guest_signals = {.connection_id = tail.connection_id.value(),
                             .event_flag = tail.event_flag.value()};
  }
  return request;
}

GpadlWords ParseWords(std::span<const std::byte> bytes) {
  GpadlWords words(bytes.size() / sizeof(uint64_t));
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] =
        Copy<boost::endian::little_uint64_buf_t>(bytes.subspan(i * sizeof(uint64_t))).value();
  }
  return words;
}

GpadlHeaderRequest ParseGpadlHeader(std::span<const std::byte> bytes) {
  const auto message = Copy<GpadlHeaderMessage>(bytes);
  return {.channel_id = message.channel_id.value(),
          .gpadl_id = message.gpadl_id.value(),
          .range_buffer_bytes = message.range_buffer_bytes.value(),
          .range_count = message.range_count.value(),
          .words = ParseWords(bytes.subspan(sizeof(message)))};
}

GpadlBodyRequest ParseGpadlBody(std::span<const std::byte> bytes) {
  const auto message = Copy<GpadlBodyMessage>(bytes);
  return {.gpadl_id = message.gpadl_id.value(),
          .words = ParseWords(bytes.subspan(sizeof(message)))};
}

GpadlTeardownRequest ParseGpadlTeardown(std::span<const std::byte> bytes) {
  const auto message = Copy<GpadlTeardownMessage>(bytes);
  return {.channel_id = message.channel_id.value(), .gpadl_id = message.gpadl_id.value()};
}

ModifyChannelRequest ParseModifyChannel(std::span<const std::byte> bytes) {
  const auto message = Copy<ModifyChannelMessage>(bytes);
  return {.channel_id = message.channel_id.value(), .target_vp = message.target_vp.value()};
}

ModifyConnectionRequest ParseModifyConnection(std::span<const std::byte> bytes) {
  const auto message = Copy<ModifyConnectionMessage>(bytes);
  return {.monitor_pages = {message.parent_to_child_monitor_page_gpa.value(),
                            message.child_to_parent_monitor_page_gpa.value()}};
}

OpenReservedChannelRequest ParseOpenReserved(std::span<const std::byte> bytes) {
  const auto message = Copy<OpenReservedChannelMessage>(bytes);
  return {.channel_id = message.channel_id.value(),
          .target_vp = message.target_vp.value(),
          .target_sint = static_cast<uint8_t>(message.target_sint.value() & 0xFF)};
}

SocketConnectRequest ParseSocketConnect(std::span<const std::byte> bytes) {
  const auto message = Copy<TlConnectRequestMessage>(bytes);
  return {.endpoint_id = message.endpoint_id, .service_id = message.service_id};
}

}  // namespace

std::string VersionText(uint32_t version) {
  return absl::StrCat(version >> 16, ".", version & 0xFFFF);
}

absl::StatusOr<GuestRequest> ParseGuestMessage(std::span<const std::byte> message,
                                               const std::optional<Protocol>& protocol) {
  const absl::StatusOr<MessageType> type = CheckForm(message, protocol);
  if (!type.ok()) return type.status();
  switch (*type) {
    case MessageType::kInitiateContact:
      return ParseContact(message);
    case MessageType::kRequestOffers:
      return OffersRequest{};
    case MessageType::kUnload:
      return UnloadRequest{};
    case MessageType::kOpenChannel:
      return ParseOpen(message, protocol->features);
    case MessageType::kCloseChannel:
      return CloseChannelRequest{Copy<ChannelIdMessage>(message).channel_id.value()};
    case MessageType::kRelIdReleased:
      return ReleaseChannelRequest{Copy<ChannelIdMessage>(message).channel_id.value()};
    case MessageType::kModifyChannel:
      return ParseModifyChannel(message);
    case MessageType::kGpadlHeader:
      return ParseGpadlHeader(message);
    case MessageType::kGpadlBody:
      return ParseGpadlBody(message);
    case MessageType::kGpadlTeardown:
      return ParseGpadlTeardown(message);
    case MessageType::kOpenReservedChannel:
      return ParseOpenReserved(message);
    case MessageType::kCloseReservedChannel:
      return CloseReservedChannelRequest{
          Copy<CloseReservedChannelMessage>(message).channel_id.value()};
    case MessageType::kTlConnectRequest:
      return ParseSocketConnect(message);
    case MessageType::kModifyConnection:
      return ParseModifyConnection(message);
    case MessageType::kPause:
      return PauseRequest{};
    case MessageType::kResume:
      return ResumeRequest{};
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("message type ", static_cast<uint32_t>(*type), " is not served"));
  }
}

}  // namespace vmbfs::hyperv
