// The guest's VMBus: the link to vmbfsd, shared by all threads of this VMM.
//
// What a VMM has to do for the link is in hyperv/guest (GuestVmm); here is how one whose
// processors run in KVM drives it:
//
//   HvPostMessage → PostMessage → POST, or the VMM's own VMBus (channel level)
//   HvSignalEvent → eventfd of CONN_SET, in the kernel; else SignalEvent
//   the server, or this VMM for it → interrupt_fd → SINT 2 of a processor; its EOM → ack_fd
//
// Rules: hyperv/link/README.md.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/guest_vmm.h"

namespace vmbfs::test_vmm {

// Thread safety: PostMessage, SignalEvent and SetSynic from processors' threads, the
// rest from the main thread; a lock lets one in at a time. A processor waits for it only
// as long as frames that are there take, or for room in the socket.
// Ownership: the eventfds live as long as this, over all resets of the VM.
// Errors: kUnavailable when the connection is lost: it is not made again.
class Vmbus {
 public:
  struct Options {
    std::string socket_path;
    std::string label;
    hyperv::GuestLink form = hyperv::GuestLink::kDirect;
    uint32_t processors = 1;
  };

  explicit Vmbus(const Options& options) : options_(options) {}
  // Waits for a server that answers. All else comes after. `ram` must outlive this.
  absl::Status Connect(const hyperv::GuestRam& ram);

  // Hypercalls; a status is the guest's (shared/specs/vmbus.md 1.4).
  uint16_t PostMessage(uint32_t vp, uint32_t connection, std::span<const std::byte> message);
  void SignalEvent(uint32_t connection);
  void SetSynic(uint32_t vp, const hyperv::SynicRegisters& registers);

  int interrupt_fd(uint32_t vp) const { return vmm_->interrupt_fd(vp); }
  int ack_fd(uint32_t vp) const { return vmm_->ack_fd(vp); }
  absl::Status SetRoute(hyperv::GuestVmm::RouteConnection route);
  // Serve is due when one of these is readable.
  std::vector<int> descriptors();
  absl::Status Serve();
  // The machine is gone: the server forgets the guest.
  absl::Status Reset();

 private:
  // Where this VMM writes message slots, it has to know of a slot that is free again.
  bool hears_acks() const { return options_.form != hyperv::GuestLink::kDirect; }

  const Options options_;
  std::mutex mutex_;      // guards what vmm_ points to, and
  absl::Status failure_;  // of a SetSynic, for Serve
  std::unique_ptr<hyperv::GuestVmm> vmm_;
};

}  // namespace vmbfs::test_vmm
