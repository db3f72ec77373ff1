// VMBus channel messages as values: what a guest asks, parsed; what the host
// answers, built with its exact size.
//
// Trust: messages are the guest's. A request that exists is well formed by
// itself; whether its ids and numbers make sense is the bus's to know.
// Format: message_format.h, shared/specs/vmbus.md section 2.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

// What the two sides agreed on.
struct Protocol {
  uint32_t version = 0;
  uint32_t features = 0;
};

// "6.0" for kVersion6_0.
std::string VersionText(uint32_t version);

// Guest physical addresses of the monitor pages; 0: none.
struct MonitorPages {
  uint64_t parent_to_child_gpa = 0;
  uint64_t child_to_parent_gpa = 0;

  // The protocol knows both or none.
  bool one_of_two() const { return (parent_to_child_gpa == 0) != (child_to_parent_gpa == 0); }
};

// InitiateContact. Fields that the requested version does not have are zero.
struct ContactRequest {
  uint32_t version = 0;
  uint32_t target_vp = 0;
  uint8_t target_sint = 0;
  uint8_t target_vtl = 0;
  uint32_t features = 0;
  MonitorPages monitor_pages;
  std::optional<Guid> client_id;
};

struct OffersRequest {};
struct UnloadRequest {};
struct PauseRequest {};
struct ResumeRequest {};

struct ModifyConnectionRequest {
  MonitorPages monitor_pages;
};

// How the two sides of a channel signal each other.
struct ChannelSignals {
  uint32_t connection_id = 0;  // the guest signals us on it
  uint16_t event_flag = 0;     // we signal the guest by it
};

struct OpenChannelRequest {
  uint32_t channel_id = 0;
  uint32_t open_id = 0;
  uint32_t ring_gpadl_id = 0;
  uint32_t target_vp = 0;
  uint32_t downstream_page_offset = 0;
  // With kFeatureGuestSignalParameters only, unchecked; otherwise the defaults
  // of the channel count.
  std::optional<ChannelSignals> guest_signals = std::nullopt;
};

struct CloseChannelRequest {
  uint32_t channel_id = 0;
};

struct ReleaseChannelRequest {
  uint32_t channel_id = 0;
};

struct ModifyChannelRequest {
  uint32_t channel_id = 0;
  uint32_t target_vp = 0;
};

// Range data of one message.
using GpadlWords = absl::InlinedVector<uint64_t, kGpadlBodyWordsMax>;

struct GpadlHeaderRequest {
  uint32_t channel_id = 0;
  uint32_t gpadl_id = 0;
  uint16_t range_buffer_bytes = 0;
  uint16_t range_count = 0;
  GpadlWords words;  // may hold junk behind the range data
};

struct GpadlBodyRequest {
  uint32_t gpadl_id = 0;
  GpadlWords words;  // may hold junk behind the range data
};

struct GpadlTeardownRequest {
  uint32_t channel_id = 0;
  uint32_t gpadl_id = 0;
};

struct OpenReservedChannelRequest {
  uint32_t channel_id = 0;
  uint32_t target_vp = 0;
  uint8_t target_sint = 0;
};

struct CloseReservedChannelRequest {
  uint32_t channel_id = 0;
};

struct SocketConnectRequest {  // TlConnectRequest
  Guid endpoint_id;
  Guid service_id;
};

using GuestRequest =
    std::variant<ContactRequest, OffersRequest, UnloadRequest, OpenChannelRequest,
                 CloseChannelRequest, ReleaseChannelRequest, ModifyChannelRequest,
                 GpadlHeaderRequest, GpadlBodyRequest, GpadlTeardownRequest,
                 OpenReservedChannelRequest, CloseReservedChannelRequest, SocketConnectRequest,
                 ModifyConnectionRequest, PauseRequest, ResumeRequest>;

// Parses one posted message. `protocol` is empty while nothing is negotiated:
// then only InitiateContact and CloseReservedChannel are known. A message that
// is longer than its type needs is accepted, its tail ignored.
//
// Errors: kInvalidArgument: drop the message, without an answer. The text holds
// no bytes of the guest's.
absl::StatusOr<GuestRequest> ParseGuestMessage(std::span<const std::byte> message,
                                               const std::optional<Protocol>& protocol);

// A message to the guest, as long as section 2.1 says.
using HostMessage = absl::InlinedVector<std::byte, kMessageBytesMax>;

HostMessage BuildVersionUnsupported();
// `protocol` is what the host accepts; `connection_state` is not success where
// it accepts the version but cannot serve it.
HostMessage BuildVersionResponse(const Protocol& protocol, uint8_t connection_state);

// What an OfferChannel tells besides its constants.
struct OfferContents {
  Guid interface_id;
  Guid instance_id;
  uint16_t flags = 0;
  uint16_t subchannel_index = 0;
  std::array<std::byte, 120> user_defined{};
  uint32_t channel_id = 0;
  uint32_t connection_id = 0;
  std::optional<uint8_t> monitor_id = std::nullopt;  // below kMonitorIds
};
HostMessage BuildOfferChannel(const OfferContents& offer);
HostMessage BuildRescindChannelOffer(uint32_t channel_id);
HostMessage BuildAllOffersDelivered();
HostMessage BuildOpenChannelResult(uint32_t channel_id, uint32_t open_id, uint32_t status);
HostMessage BuildGpadlCreated(uint32_t channel_id, uint32_t gpadl_id, uint32_t status);
HostMessage BuildGpadlTorndown(uint32_t gpadl_id);
HostMessage BuildUnloadComplete();
HostMessage BuildModifyChannelResponse(uint32_t channel_id, uint32_t status);
HostMessage BuildModifyConnectionResponse(uint8_t connection_state);
HostMessage BuildPauseResponse();
HostMessage BuildSocketConnectResult(const SocketConnectRequest& request, uint32_t status);

}  // namespace vmbfs::hyperv
