// Channel level: this VMM has a VMBus of its own (hyperv/bus), and vmbfsd's
// devices are channels on it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "hyperv/bus/bus.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guest/forwarded_channels.h"
#include "hyperv/guest/guest_link_socket.h"
#include "tests/real_guest/vmm/vmbus_link.h"

namespace vmbfs::test_vmm {

// Bounds: the guest's messages wait while one of ours does, so that few do.
class ChannelLevel final : public VmbusLink, private hyperv::BusPort {
 public:
  ChannelLevel(const Options& options, hyperv::GuestLinkSocket socket, const hyperv::GuestRam& ram,
               ProcessorMail& mail);

 private:
  hyperv::VmmLink::Terms terms() const override;
  std::vector<int> events() const override;
  void HandleMail(const ProcessorMail::Contents& contents) override;
  void HandleEvents() override;
  void HandleEndOfMessage(uint32_t vp) override;
  void ForgetGuest() override;

  // BusPort.
  void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void OpenChannel(const hyperv::OpenRequest& request) override { channels_.OpenChannel(request); }
  void CloseChannel(hyperv::OfferId offer) override { channels_.CloseChannel(offer); }
  void ModifyChannel(hyperv::OfferId offer, uint32_t target_vp) override {
    channels_.ModifyChannel(offer, target_vp);
  }
  void OfferReleased(hyperv::OfferId offer) override { channels_.OfferReleased(offer); }
  void DropQueuedMessages() override { to_guest_.clear(); }

  void HandleRequest(const hyperv::GuestLinkFrame& frame);
  void MoveMessages();

  hyperv::Bus bus_;
  hyperv::ForwardedChannels channels_;
  std::deque<PostedMessage> from_guest_;
  struct Outgoing {
    uint32_t vp = 0;
    uint32_t sint = 0;
    std::vector<std::byte> bytes;
  };
  std::deque<Outgoing> to_guest_;
};

}  // namespace vmbfs::test_vmm
