// What is behind Bus: one class, written along its ideas in bus_connection.cc,
// bus_offers.cc, bus_channels.cc and bus_gpadls.cc.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "hyperv/bus/bus.h"
#include "hyperv/bus/channel_rules.h"
#include "hyperv/bus/channel_table.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/gpadl/gpadl_table.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message.h"

namespace vmbfs::hyperv {

class Bus::Impl {
 public:
  explicit Impl(BusPort& port) : port_(port) {}

  absl::StatusOr<OfferId> Offer(const ChannelOffer& offer);
  void Revoke(OfferId offer);
  void HandleMessage(uint32_t connection, std::span<const std::byte> message);
  void OpenDone(OfferId offer, const absl::Status& result);
  void CloseDone(OfferId offer);
  void ModifyDone(OfferId offer, const absl::Status& result);
  void Reset();
  std::span<const uint64_t> RingPageFrames(OfferId offer) const;
  BusStatus status() const;
  std::vector<BusChannelStatus> channels() const;

 private:
  enum class ConnectionState {
    kDisconnected,
    kConnected,
    kDisconnecting,  // devices close; then next_action_
  };
  struct AnswerUnload {
    uint32_t vp = 0;
  };
  // What belongs to the connection that stands.
  struct Connection {
    uint32_t message_vp = 0;  // where messages to the guest go
    bool offers_requested = false;
    MonitorPages monitor_pages;
    std::optional<Guid> client_id;
    bool paused = false;
    std::vector<HostMessage> held{};  // while paused
  };
  // What follows a disconnect: nothing, UnloadComplete, or a new contact.
  using NextAction = std::variant<std::monostate, AnswerUnload, ContactRequest>;

  static constexpr size_t kDropReasonBytesMax = 200;
  // While the guest pauses it can ask for nothing, so that a channel comes to
  // at most the result of an open or a modify, a GpadlTorndown or an offer, and
  // a Rescind.
  static constexpr size_t kHeldMessagesMax = 3 * ChannelTable::kChannelsMax;

  // bus.cc
  // To the connection's place, after its pause.
  void Send(const HostMessage& message);
  void SendTo(uint32_t vp, uint8_t sint, const HostMessage& message);
  // A guest's message has no effect and no answer.
  void Drop(absl::string_view reason);
  // A guest's message is answered with failure.
  void NoteRefusal(absl::string_view reason);
  void DropFor(const BusChannel* channel, uint32_t guest_channel_id, absl::string_view what);
  static ChannelState StateOf(const BusChannel* channel);
  bool AtLeast(uint32_t version) const { return protocol_ && protocol_->version >= version; }

  // bus_connection.cc
  void OnContact(uint32_t connection, const ContactRequest& request);
  void On(const UnloadRequest& request);
  void On(const ModifyConnectionRequest& request);
  void On(const PauseRequest& request);
  void On(const ResumeRequest& request);
  void BeginDisconnect(NextAction next);
  void FinishDisconnectIfDrained();
  void Negotiate(const ContactRequest& request);
  uint64_t MonitorPageGpa() const;
  bool MonitorInUse() const;

  // bus_offers.cc
  static ChannelSignals DefaultSignals(uint32_t channel_id);
  void On(const OffersRequest& request);
  void On(const ReleaseChannelRequest& request);
  void On(const SocketConnectRequest& request);
  void SendOffer(BusChannel& channel, uint32_t channel_id = 0);
  void Rescind(BusChannel& channel);
  void LetGo(BusChannel& channel);
  void FinishRelease(BusChannel& channel);

  // bus_channels.cc
  void On(const OpenChannelRequest& request);
  void On(const CloseChannelRequest& request);
  void On(const ModifyChannelRequest& request);
  void On(const OpenReservedChannelRequest& request);
  void On(const CloseReservedChannelRequest& request);
  void StartOpen(BusChannel& channel, const OpenChannelRequest& request);
  absl::Status CheckSignals(const BusChannel& channel, const ChannelSignals& guest_signals) const;
  void AskToClose(BusChannel& channel, ChannelState state);
  void LetGoOfRing(BusChannel& channel);
  void StartModify(BusChannel& channel, uint32_t target_vp);
  void RefuseModify(uint32_t guest_channel_id);
  void AnswerModify(uint32_t channel_id, uint32_t status);

  // bus_gpadls.cc
  void On(const GpadlHeaderRequest& request);
  void On(const GpadlBodyRequest& request);
  void On(const GpadlTeardownRequest& request);
  void AnswerGpadl(uint32_t channel_id, uint32_t gpadl_id,
                   const absl::StatusOr<GpadlProgress>& progress);

  BusPort& port_;

  ConnectionState state_ = ConnectionState::kDisconnected;
  NextAction next_action_;            // in kDisconnecting
  std::optional<Protocol> protocol_;  // in kConnected
  Connection connection_;             // in kConnected

  ChannelTable channels_;
  GpadlTable gpadls_;

  uint64_t messages_received_ = 0;
  uint64_t messages_dropped_ = 0;
  uint64_t messages_sent_ = 0;
  std::string last_drop_reason_;
};

}  // namespace vmbfs::hyperv
