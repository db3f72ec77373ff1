// The VMM's end of the link: what a VMM does to let vmbfsd be its VMBus
// (SynIC level), or channels on its own VMBus (channel level).
//
// All of it runs on the main thread. Processors come through ProcessorMail, and
// VMBus comes to the guest through eventfds that KVM turns into interrupts:
//
//   HvPostMessage → ProcessorMail → Serve → POST, or the own Bus
//   HvSignalEvent → eventfd of CONN_SET, in the kernel; or ProcessorMail
//   irq eventfd → SINT 2 of a processor; its EOM → ack eventfd
//
// Rules: hyperv/link/README.md.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/guest/vmm_synic.h"
#include "tests/real_guest/vmm/kvm_machine.h"
#include "tests/real_guest/vmm/processor_mail.h"

namespace vmbfs::test_vmm {

// Thread safety: the main thread.
// Ownership: refers to `ram` and `mail`, which must outlive it, and to the
// machine from Attach to Detach. Eventfds live as long as the link, since the
// server keeps them over a reset of the VM.
// Errors: kUnavailable when the connection is lost: it is not made again.
class VmbusLink {
 public:
  struct Options {
    std::string socket_path;
    std::string label;
    hyperv::GuestLink form = hyperv::GuestLink::kDirect;
    uint32_t processors = 1;
  };

  // Connects and hands memory over. Waits until `deadline` for a server that
  // answers HELLO: only HELLO_OK is a sign of life, since the backlog of a
  // server that ends accepts connections too.
  static absl::StatusOr<std::unique_ptr<VmbusLink>> Connect(const Options& options,
                                                            const hyperv::GuestRam& ram,
                                                            ProcessorMail& mail,
                                                            hyperv::Deadline deadline);
  virtual ~VmbusLink() = default;

  // Connects VMBus to a machine that does not run yet.
  absl::Status Attach(KvmMachine& machine);
  void Detach() { machine_ = nullptr; }

  // Call Serve when one of these is readable.
  std::vector<int> descriptors() const;
  absl::Status Serve();

  // The machine is gone; the next one finds the server as at the beginning.
  absl::Status Reset();

 protected:
  VmbusLink(const Options& options, hyperv::GuestLinkSocket socket, const hyperv::GuestRam& ram,
            ProcessorMail& mail, hyperv::VmmLink::OnRequest on_request);

  virtual hyperv::VmmLink::Terms terms() const = 0;
  virtual absl::Status AttachConnections() { return absl::OkStatus(); }
  // Eventfds that the server writes and this VMM reads.
  virtual std::vector<int> events() const { return {}; }
  virtual void HandleMail(const ProcessorMail::Contents& contents) = 0;
  virtual void HandleEvents() = 0;
  virtual void HandleEndOfMessage(uint32_t vp) = 0;
  virtual void ForgetGuest() = 0;

  // Where the VMM writes message slots and event flags itself.
  bool delivers() const { return form_ != hyperv::GuestLink::kDirect; }
  void SetPages(uint32_t vp, const SynicState& state);
  void SetEventFlag(uint32_t vp, uint32_t flag);
  hyperv::LinkMsgResult DeliverMessage(uint32_t vp, uint32_t sint, uint32_t type,
                                       std::span<const std::byte> message);

  uint32_t processors() const { return synic_.vp_count(); }
  int irq(uint32_t vp) const { return irqs_[vp].get(); }
  int ack(uint32_t vp) const { return acks_[vp].get(); }
  // A frame that no answer is awaited for.
  template <typename Payload>
  void Send(hyperv::LinkType type, const Payload& payload) {
    absl::Status sent =
        link_.Send(type, hyperv::PayloadBytes(payload), hyperv::VmmLink::SendDeadline());
    if (!sent.ok()) link_.Break(sent);
  }

  ProcessorMail& mail_;
  hyperv::VmmLink link_;
  KvmMachine* machine_ = nullptr;

 private:
  void ResetSynics();

  const hyperv::GuestLink form_;
  const hyperv::GuestRam& ram_;
  hyperv::VmmSynic synic_;
  std::vector<hyperv::UniqueFd> irqs_;  // by processor, as the next
  std::vector<hyperv::UniqueFd> acks_;
};

hyperv::UniqueFd NewEventFd();

}  // namespace vmbfs::test_vmm
