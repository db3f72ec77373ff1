// SynIC level: vmbfsd is the guest's whole VMBus; this VMM carries messages,
// events and the SynICs' state.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "tests/real_guest/vmm/vmbus_link.h"

namespace vmbfs::test_vmm {

// Bounds: kConnectionsMax connections, kEventsMax event flags.
class SynicLevel final : public VmbusLink {
 public:
  SynicLevel(const Options& options, hyperv::GuestLinkSocket socket, const hyperv::GuestRam& ram,
             ProcessorMail& mail);

 private:
  static constexpr size_t kConnectionsMax = 4096;
  static constexpr size_t kEventsMax = 4096;

  hyperv::VmmLink::Terms terms() const override;
  absl::Status AttachConnections() override;
  std::vector<int> events() const override;
  void HandleMail(const ProcessorMail::Contents& contents) override;
  void HandleEvents() override;
  void HandleEndOfMessage(uint32_t vp) override;
  void ForgetGuest() override;

  void HandleRequest(hyperv::GuestLinkFrame frame);
  void HandlePostAck(const hyperv::GuestLinkFrame& frame);
  void HandleSintGet(const hyperv::GuestLinkFrame& frame);
  void HandleConnSet(hyperv::GuestLinkFrame frame);
  void HandleConnClr(const hyperv::GuestLinkFrame& frame);
  void HandleMsgSend(const hyperv::GuestLinkFrame& frame);
  void HandleEventGet(const hyperv::GuestLinkFrame& frame);

  std::map<uint32_t, hyperv::UniqueFd> connections_;
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;
  // Mediated delivery: by processor and event flag.
  std::map<std::pair<uint32_t, uint32_t>, hyperv::UniqueFd> events_;
};

}  // namespace vmbfs::test_vmm
