// A VMM without a VMBus: the server is the guest's whole VMBus host (SynIC
// level of the link), and this one carries hypercalls, messages and events.
//
// Rules: hyperv/link/README.md, shared/specs/vmm-link.md 1.3 and 1.7.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/guest/vmm_synic.h"

namespace vmbfs::hyperv {

// Who writes the guest's message slots and event flags.
enum class SynicDelivery {
  kDirect,    // the server, which raises the interrupt by an eventfd
  kMediated,  // the VMM: MSG_SEND carries messages, eventfds stand for flags
};

// Contracts are GuestVmm's.
//
// Thread safety: one thread, as GuestVmm.
// Bounds: kLinkPostsMax posts on their way, kConnectionsMax connections,
// kEventsMax event flags.
class SynicVmm final : public GuestVmm {
 public:
  static constexpr size_t kConnectionsMax = 4096;
  static constexpr size_t kEventsMax = 4096;

  SynicVmm(GuestLinkSocket socket, const GuestRam& ram, uint32_t vp_count,
           std::span<const SynicPages> pages, SynicDelivery delivery)
      : GuestVmm(std::move(socket), ram, vp_count, pages), delivery_(delivery) {}

  uint32_t PostMessage(uint32_t vp, uint32_t connection,
                       std::span<const std::byte> message) override;
  void SignalEvent(uint32_t connection) override;
  void EndOfMessage(uint32_t vp) override;
  absl::Status SetSynic(uint32_t vp, const SynicRegisters& registers, Deadline deadline) override;
  absl::Status SetRoute(RouteConnection route) override;

 private:
  struct EventFlag {
    uint32_t vp = 0;
    uint32_t flag = 0;
    friend auto operator<=>(const EventFlag&, const EventFlag&) = default;
  };

  VmmLink::Terms terms() const override;
  std::vector<int> events() const override;
  void TakeEvents() override;
  void ForgetGuest() override;

  void HandleRequest(GuestLinkFrame frame) override;
  void HandlePostAck(const GuestLinkFrame& frame);
  void HandleSintGet(const GuestLinkFrame& frame);
  void HandleConnSet(GuestLinkFrame frame);
  void HandleConnClr(const GuestLinkFrame& frame);
  void HandleMsgSend(const GuestLinkFrame& frame);
  void HandleEventGet(const GuestLinkFrame& frame);

  const SynicDelivery delivery_;
  std::map<uint32_t, UniqueFd> connections_;
  RouteConnection route_;  // may be empty
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;
  std::map<EventFlag, UniqueFd> events_;  // mediated delivery
};

}  // namespace vmbfs::hyperv
