// The connection: contact, unload, reset (shared/specs/vmbus.md 2.5, 3.1, 3.5).

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"
#include "hyperv/gpadl/range_list.h"

namespace vmbfs::hyperv {
namespace {

// Exact matches only. The ones below 2.4 need an interrupt page, which this
// host does not serve.
constexpr std::array<uint32_t, 9> kVersionsServed = {kVersion6_0, kVersion5_3, kVersion5_2,
                                                     kVersion5_1, kVersion5_0, kVersion4_1,
                                                     kVersion4_0, kVersion3_0, kVersion2_4};
// README.md says why the others are refused.
constexpr uint32_t kFeaturesServed = kFeatureGuestSignalParameters | kFeatureModifyConnection |
                                     kFeatureClientId | kFeaturePauseResume;

}  // namespace

void Bus::Impl::OnContact(uint32_t connection, const ContactRequest& request) {
  // On the standard connection the firmware sends zeros here: they mean nothing.
  if (connection == kMultiClientMessageConnection) {
    if (request.target_vtl != 0) {
      Drop(absl::StrCat("contact for virtual trust level ", request.target_vtl));
      return;
    }
    if (request.version >= kVersion5_0 && request.target_sint != kVmbusSint) {
      if (request.target_sint > kSintMax) {
        Drop(absl::StrCat("contact on SINT ", request.target_sint));
        return;
      }
      NoteRefusal(absl::StrCat("contact on SINT ", request.target_sint));
      SendTo(request.target_vp, request.target_sint, BuildVersionUnsupported());
      return;
    }
  }
  switch (state_) {
    case ConnectionState::kDisconnected:
      Negotiate(request);
      return;
    case ConnectionState::kConnected:
      // Before the version is looked at: also an unsupported one ends what was.
      BeginDisconnect(request);
      return;
    case ConnectionState::kDisconnecting:
      next_action_ = request;
      return;
  }
}

void Bus::Impl::Negotiate(const ContactRequest& request) {
  if (std::find(kVersionsServed.begin(), kVersionsServed.end(), request.version) ==
      kVersionsServed.end()) {
    NoteRefusal(absl::StrCat("contact of version ", VersionText(request.version)));
    SendTo(request.target_vp, kVmbusSint, BuildVersionUnsupported());
    return;
  }
  const Protocol protocol{.version = request.version,
                          .features = request.features & kFeaturesServed};
  if (request.monitor_pages.one_of_two()) {
    NoteRefusal("contact with one monitor page of two");
    SendTo(request.target_vp, kVmbusSint, BuildVersionResponse(protocol, kConnectionStateFailure));
    return;
  }
  state_ = ConnectionState::kConnected;
  protocol_ = protocol;
  connection_ = {.message_vp = request.target_vp,
                 .monitor_pages = request.monitor_pages,
                 .client_id = request.client_id};
  Send(BuildVersionResponse(protocol, kConnectionStateSuccess));
}

void Bus::Impl::On(const UnloadRequest&) { BeginDisconnect(AnswerUnload{connection_.message_vp}); }

void Bus::Impl::On(const ModifyConnectionRequest& request) {
  if (request.monitor_pages.one_of_two() || MonitorInUse()) {
    NoteRefusal(MonitorInUse() ? "ModifyConnection while a monitored channel is open"
                               : "ModifyConnection with one monitor page of two");
    Send(BuildModifyConnectionResponse(kConnectionStateFailure));
    return;
  }
  connection_.monitor_pages = request.monitor_pages;
  Send(BuildModifyConnectionResponse(kConnectionStateSuccess));
}

// Where the guest signals monitored channels; 0: it cannot. An address within a
// page counts as none.
uint64_t Bus::Impl::MonitorPageGpa() const {
  const uint64_t gpa = connection_.monitor_pages.child_to_parent_gpa;
  return gpa % PageRanges::kPageBytes == 0 ? gpa : 0;
}

// Whether a device may be signalled by the page.
bool Bus::Impl::MonitorInUse() const {
  const std::vector<const BusChannel*> channels = channels_.InOrder();
  return std::any_of(channels.begin(), channels.end(), [](const BusChannel* channel) {
    return channel->monitor_id.has_value() && RingInUse(channel->state);
  });
}

void Bus::Impl::On(const PauseRequest&) {
  Send(BuildPauseResponse());
  connection_.paused = true;
}

void Bus::Impl::On(const ResumeRequest&) {
  if (!connection_.paused) {
    Drop("Resume without a Pause");
    return;
  }
  connection_.paused = false;
  for (const HostMessage& each : std::exchange(connection_.held, {})) Send(each);
}

void Bus::Impl::Reset() {
  port_.DropQueuedMessages();
  BeginDisconnect(std::monostate{});
}

void Bus::Impl::BeginDisconnect(NextAction next) {
  state_ = ConnectionState::kDisconnecting;
  next_action_ = std::move(next);
  protocol_.reset();
  connection_ = {};
  gpadls_.EraseAll();
  for (BusChannel* channel : channels_.InOrder()) LetGo(*channel);
  FinishDisconnectIfDrained();
}

void Bus::Impl::FinishDisconnectIfDrained() {
  if (state_ != ConnectionState::kDisconnecting) return;
  for (const BusChannel* channel : channels_.InOrder()) {
    if (channel->state == ChannelState::kClosingRelease) return;
  }
  state_ = ConnectionState::kDisconnected;
  const NextAction next = std::exchange(next_action_, std::monostate{});
  if (const auto* unload = std::get_if<AnswerUnload>(&next)) {
    SendTo(unload->vp, kVmbusSint, BuildUnloadComplete());
  } else if (const auto* contact = std::get_if<ContactRequest>(&next)) {
    Negotiate(*contact);
  }
}

}  // namespace vmbfs::hyperv
