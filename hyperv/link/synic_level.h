// Level 1 of the link: we are the whole VMBus host. The VMM forwards what the
// guest posts; Bus answers it; SynIC and event connections carry it.
//
// Trust: frames are the VMM's, what the guest posted is checked by Bus.
// Format: README.md.

#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_exchange.h"
#include "hyperv/link/link_level.h"
#include "hyperv/link/monitor_poller.h"
#include "hyperv/link/synic.h"
#include "hyperv/link/synic_wire.h"

namespace vmbfs::hyperv {

// Thread safety: the exchange's executor, which runs one thing at a time.
// Bounds: kLinkPostsMax waiting posts; see Bus, Synic, LinkChannels.
class SynicLevel final : public LinkLevel, public BusPort {
 public:
  // How often a full message slot is looked at again without an EOM.
  static constexpr std::chrono::milliseconds kRetry{100};

  // `delivery` is one of kLinkDeliveryDirect and kLinkDeliveryMediated.
  SynicLevel(LinkExchange& exchange, const GuestMemory& memory, uint32_t vp_count,
             uint32_t delivery);

  // LinkLevel
  LinkTypeLevel types() const override { return LinkTypeLevel::kSynic; }
  absl::Status HandleFrame(LinkFrame& frame) override;
  void Progress() override;
  absl::Status AddDevice(std::shared_ptr<LinkDevice> device) override;
  void RemoveDevice(const LinkDevice& device) override;
  bool IsOpen(const LinkDevice& device) const override;
  void MemoryChanged() override;
  void FaultUsersOf(uint32_t region) override;
  void SetRunning(bool running) override;
  void Reset() override;
  void ResetAnswered() override;
  void Describe(LinkStatus& status) const override;

  // BusPort
  void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void OpenChannel(const OpenRequest& request) override;
  void CloseChannel(OfferId offer) override;
  void ModifyChannel(OfferId offer, uint32_t target_vp) override;
  void OfferReleased(OfferId offer) override { wired_.erase(offer); }
  void DropQueuedMessages() override { synic_->DropMessages(); }

 private:
  // A channel that the bus asked to be opened.
  struct Wired {
    uint32_t connection_id = 0;
    std::weak_ptr<SynicWire> wire;
  };

  absl::Status HandleSynic(const LinkFrame& frame);
  absl::Status HandlePost(const LinkFrame& frame);
  absl::Status HandleSignal(const LinkFrame& frame);
  absl::Status HandleEom(const LinkFrame& frame);
  absl::Status CheckVp(uint32_t vp) const;
  void ConsumePosts();
  void ArmRetry();
  void OpenDone(OfferId offer, const absl::Status& result);
  void AnswerBus(std::function<void(Bus&)> answer);

  LinkExchange& exchange_;
  const GuestMemory& memory_;
  const uint32_t vp_count_;
  const uint32_t delivery_;
  bool running_ = false;
  size_t resets_unanswered_ = 0;
  std::deque<LinkPost> posts_;  // not yet consumed
  std::optional<uint64_t> last_post_seq_;
  bool retry_armed_ = false;
  boost::asio::steady_timer retry_timer_;

  // Each is used by those below it.
  const std::unique_ptr<Synic> synic_;
  std::map<OfferId, Wired> wired_;
  const std::shared_ptr<LinkChannels> channels_;
  MonitorPoller monitor_;
  Bus bus_;
};

}  // namespace vmbfs::hyperv
