// A VMM with a VMBus of its own, which lets the server serve channels on it
// (channel level of the link): the worked example of how a VMM adopts it.
//
// The VMBus is hyperv/bus. ForwardedChannels is what stands between it and the
// link; message slots, event flags and hypercalls are this class's.
// Rules: hyperv/link/README.md, shared/specs/vmm-link.md 1.4 and 1.7.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/guest/forwarded_channels.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/guest/vmm_synic.h"

namespace vmbfs::hyperv {

// Contracts are GuestVmm's.
//
// Thread safety: one thread, as GuestVmm.
// Bounds: a post is refused while kLinkPostsMax messages to the guest wait.
class ChannelVmm final : public GuestVmm, private BusPort {
 public:
  ChannelVmm(GuestLinkSocket socket, const GuestRam& ram, uint32_t vp_count,
             std::span<const SynicPages> pages)
      : GuestVmm(std::move(socket), ram, vp_count, pages), bus_(*this), channels_(link_, bus_) {}

  uint32_t PostMessage(uint32_t vp, uint32_t connection,
                       std::span<const std::byte> message) override;
  void SignalEvent(uint32_t connection) override;
  void EndOfMessage(uint32_t vp) override;
  absl::Status SetSynic(uint32_t vp, const SynicRegisters& registers, Deadline deadline) override;

 private:
  using SintKey = std::pair<uint32_t, uint8_t>;  // processor, interrupt source

  VmmLink::Terms terms() const override;
  void HandleRequest(GuestLinkFrame frame) override;
  std::vector<int> events() const override;
  void TakeEvents() override;
  void ForgetGuest() override { bus_.Reset(); }

  // BusPort.
  void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void OpenChannel(const OpenRequest& request) override { channels_.OpenChannel(request); }
  void CloseChannel(OfferId offer) override { channels_.CloseChannel(offer); }
  void ModifyChannel(OfferId offer, uint32_t target_vp) override {
    channels_.ModifyChannel(offer, target_vp);
  }
  void OfferReleased(OfferId offer) override { channels_.OfferReleased(offer); }
  void DropQueuedMessages() override { waiting_messages_.clear(); }

  void DeliverMessages(const SintKey& key);
  size_t waiting_messages() const;

  Bus bus_;
  ForwardedChannels channels_;
  // Messages that found their slot full, in order.
  std::map<SintKey, std::deque<std::vector<std::byte>>> waiting_messages_;
};

}  // namespace vmbfs::hyperv
