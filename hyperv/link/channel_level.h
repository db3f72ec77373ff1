// Level 2 of the link: the VMM has a VMBus of its own. Our devices are channels
// on it, and the VMM tells us what the guest does with each.
//
// Trust: frames are the VMM's. Page frames, offsets and processors in them are
// the guest's. Format: link_channel_format.h, README.md.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/gpadl/gpadl_table.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/channel_requests.h"
#include "hyperv/link/channel_wire.h"
#include "hyperv/link/link_channel_codec.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_exchange.h"
#include "hyperv/link/link_level.h"

namespace vmbfs::hyperv {

// Thread safety: the exchange's executor, which runs one thing at a time.
// Bounds: kOffersMax offers, those included that were revoked and not released;
// kUnansweredMax OFFERs and REVOKEs without an answer, the rest waits its turn,
// one an offer; GPADLs and page frames as GpadlTable.
class ChannelLevel final : public LinkLevel {
 public:
  static constexpr size_t kOffersMax = 2047;  // as many as a VMBus has
  // Below the frames that stop us from reading: a VMM that sends its answers
  // before it reads on does not wait for us while we wait for it.
  static constexpr size_t kUnansweredMax = 32;

  ChannelLevel(LinkExchange& exchange, const GuestMemory& memory, uint32_t vp_count);

  // LinkLevel
  LinkTypeLevel types() const override { return LinkTypeLevel::kChannel; }
  absl::Status HandleFrame(LinkFrame& frame) override;
  void Progress() override {}  // every request is answered as it comes
  absl::Status AddDevice(std::shared_ptr<LinkDevice> device) override;
  void RemoveDevice(const LinkDevice& device) override;
  bool IsOpen(const LinkDevice& device) const override;
  void MemoryChanged() override {}
  void FaultUsersOf(uint32_t region) override;
  void SetRunning(bool running) override { channels_->SetRunning(running); }
  void Reset() override;
  void ResetAnswered() override {}
  void Describe(LinkStatus& status) const override;

 private:
  struct Offered {
    OfferId offer{};
    ChannelOffer content;
    OfferState state = OfferState::kOffering;
    bool withdrawn = false;  // in kOffering: to be revoked as soon as it is known
    uint32_t channel = 0;    // the VMM's name for it; from kClosed on
    uint32_t relid = 0;

    // In kOpening and kOpen.
    LinkHeader open_request;
    uint32_t target_vp = 0;
    uint32_t ring_gpadl = 0;
    std::span<const uint64_t> ring_page_frames;  // held in the GPADL table; or none
    std::weak_ptr<ChannelWire> wire;
    std::optional<LinkHeader> gpadl_del_request;  // waits for the ring
  };

  // Handlers of a request for a channel that exists.
  absl::Status HandleGpadlAdd(LinkFrame& frame);
  absl::Status HandleGpadlDel(const LinkFrame& frame);
  absl::Status HandleOpen(LinkFrame& frame);
  absl::Status HandleModify(LinkFrame& frame);
  absl::Status HandleClose(const LinkFrame& frame);
  absl::Status HandleRelease(const LinkFrame& frame);

  // OFFER and REVOKE, by the offer's state: asked in order, each in its turn.
  void Ask(OfferId offer);
  void AskNext();
  void SendOffer(const Offered& offered);
  void SendRevoke(const Offered& offered);
  absl::Status OfferAnswered(OfferId offer, const absl::Status& result, const LinkFrame& reply);
  void Revoke(Offered& offered);
  void OpenDone(OfferId offer, const absl::Status& result);
  void CloseChannel(Offered& offered);
  void LetGoOfRing(Offered& offered);

  // The channel, if `request` may be done in its state; the VMM is told why not.
  Offered* Admit(const LinkHeader& header, ChannelLevelRequest request, uint32_t vmm_channel);
  absl::Status CheckProcessor(uint32_t guest_vp) const;
  absl::Status AddGpadl(const LinkGpadlAdd& add, std::vector<uint64_t> page_frames);
  // The guest is told of failure, the reason is noted.
  void Fail(const LinkHeader& header, const absl::Status& reason);
  void Refuse(const LinkHeader& header, const absl::Status& reason);

  LinkExchange& exchange_;
  const GuestMemory& memory_;
  const uint32_t vp_count_;
  uint64_t last_offer_ = 0;
  std::map<OfferId, Offered> offers_;
  std::map<uint32_t, OfferId> by_channel_;
  std::deque<OfferId> waiting_;  // for OFFER or REVOKE to be sent
  size_t unanswered_ = 0;
  GpadlTable gpadls_;
  const std::shared_ptr<LinkChannels> channels_;
};

}  // namespace vmbfs::hyperv
