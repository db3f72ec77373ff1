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

  SynicVmm(GuestLinkSocket socket, const GuestRam& ram, std::span<const SynicPages> processors,
           SynicDelivery delivery);

  uint32_t PostMessage(uint32_t vp, uint32_t connection,
                       std::span<const std::byte> message) override;
  void SignalEvent(uint32_t connection) override;
  void EndOfMessage(uint32_t vp) override;
  absl::Status Wait(Deadline deadline) override;
  absl::Status Reset(Deadline deadline) override;
  absl::Status EnableSynics(Deadline deadline) override;
  absl::Status Pause(Deadline deadline) override;
  absl::Status Resume(Deadline deadline) override;

 private:
  struct EventFlag {
    uint32_t vp = 0;
    uint32_t flag = 0;
    friend auto operator<=>(const EventFlag&, const EventFlag&) = default;
  };

  absl::Status SayHello(const std::string& label, Deadline deadline) override;
  absl::Status HandOver(Deadline deadline) override;
  absl::Status SendSynics(bool enabled, Deadline deadline);

  void HandleRequest(GuestLinkFrame frame);
  void HandlePostAck(const GuestLinkFrame& frame);
  void HandleSintGet(const GuestLinkFrame& frame);
  void HandleConnSet(GuestLinkFrame frame);
  void HandleMsgSend(const GuestLinkFrame& frame);
  void HandleEventGet(const GuestLinkFrame& frame);

  const GuestRam& ram_;
  const std::vector<SynicPages> processors_;
  const SynicDelivery delivery_;
  VmmLink link_;
  std::map<uint32_t, UniqueFd> connections_;
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;

  // Direct delivery, by processor.
  std::vector<UniqueFd> interrupts_;  // the server raises SINT 2
  std::vector<UniqueFd> acks_;        // we tell of EOM

  // Mediated delivery.
  VmmSynic synic_;
  std::map<EventFlag, UniqueFd> events_;  // the server writes them
  bool interrupted_ = false;              // since the last Wait
};

}  // namespace vmbfs::hyperv
