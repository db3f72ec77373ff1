// The VMM's role for one guest: hands its RAM to the server, takes its
// hypercalls, and brings it what the server has for it.
//
// Format and rules: hyperv/link/README.md, shared/specs/vmm-link.md 1.3, 1.4 and 1.7.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
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
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

// Hypercall status codes (shared/specs/vmbus.md 1.4).
inline constexpr uint32_t kHypercallSuccess = 0;
inline constexpr uint32_t kHypercallInvalidParameter = 5;
inline constexpr uint32_t kHypercallInvalidConnectionId = 0x12;
inline constexpr uint32_t kHypercallInsufficientBuffers = 0x13;

// Guest physical addresses of the pages that a guest without registers of its own
// has in one processor's SynIC.
struct SynicPages {
  uint64_t message_page_gpa = 0;
  uint64_t event_flags_page_gpa = 0;
};

// A guest in user space has its processors on the VMM's thread, and Waits. A VMM whose
// processors run in KVM polls `descriptors`, calls Service, and makes interrupts of
// `interrupt_fd` (tests/real_guest/vmm).
//
// Thread safety: one thread at a time.
// Errors: once the link broke, every waiting call says so with kUnavailable.
class GuestVmm {
 public:
  // For HELLO_OK at the first try; doubled after silence only, up to
  // kHelloPatienceMax, so that a slow server is reached too.
  static constexpr std::chrono::milliseconds kHelloPatience{5'000};
  static constexpr std::chrono::milliseconds kHelloPatienceMax{60'000};

  // Connects, says HELLO, hands RAM and the SynICs over, and starts. Tries again while
  // no server listens, another VMM is connected, or what accepts the connection does
  // not answer HELLO: only HELLO_OK is a sign of life. `ram` must outlive the result.
  // Without `pages` the SynICs are as after a reset.
  //
  // Errors: kUnavailable         no HELLO_OK until the deadline;
  //         kFailedPrecondition  the server refused, with its words.
  static absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(
      const std::string& socket_path, const std::string& label, const GuestRam& ram,
      uint32_t vp_count, std::span<const SynicPages> pages, Deadline deadline,
      GuestLink link = GuestLink::kDirect,
      std::chrono::milliseconds hello_patience = kHelloPatience);
  virtual ~GuestVmm() = default;

  // HvPostMessage. Looks after the socket first, without waiting.
  virtual uint32_t PostMessage(uint32_t vp, uint32_t connection,
                               std::span<const std::byte> message) = 0;

  // HvSignalEvent with flag 0.
  virtual void SignalEvent(uint32_t connection) = 0;

  // The processor wrote EOM.
  virtual void EndOfMessage(uint32_t vp) = 0;

  // The guest wrote a processor's registers.
  virtual absl::Status SetSynic(uint32_t vp, const SynicRegisters& registers,
                                Deadline deadline) = 0;

  // Resets the VM: SynICs off, RESET and its answer.
  absl::Status Reset(Deadline deadline);

  // From Pause's answer to Resume the server leaves the guest's memory alone.
  absl::Status Pause(Deadline deadline);
  absl::Status Resume(Deadline deadline);

  // --- Processors on this thread. ---

  // Sleeps until a processor is interrupted or a frame came.
  // Errors: kDeadlineExceeded, kUnavailable.
  absl::Status Wait(Deadline deadline);
  // The guest enabled its SynICs, at the pages of Connect.
  absl::Status EnableSynics(Deadline deadline);

  // --- Processors that run elsewhere. ---

  // Where something for Service comes.
  std::vector<int> descriptors() const;
  // Looks after what has come. Does not wait.
  absl::Status Service();
  // Eventfds, for as long as this lives: written to raise SINT 2 of a processor; to be
  // written at its EOM, by KVM. Unless the delivery is direct, EndOfMessage is due then.
  int interrupt_fd(uint32_t vp) const { return interrupts_[vp].get(); }
  int ack_fd(uint32_t vp) const { return acks_[vp].get(); }

  // Told, now and as they come and go, which eventfds may be written in place of
  // SignalEvent (-1: none any more); an error refuses one. Empty: told no more.
  using RouteConnection = std::function<absl::Status(uint32_t connection, int event_fd)>;
  virtual absl::Status SetRoute(RouteConnection) { return absl::OkStatus(); }

 protected:
  GuestVmm(GuestLinkSocket socket, const GuestRam& ram, uint32_t vp_count,
           std::span<const SynicPages> pages);

  uint32_t vp_count() const { return synic_.vp_count(); }
  void Interrupt(uint32_t vp) { RingEventFd(interrupt_fd(vp)); }
  // Where the VMM writes message slots and event flags itself: does so, and interrupts.
  LinkMsgResult Deliver(uint32_t vp, uint32_t sint, uint32_t type,
                        std::span<const std::byte> payload);
  void SetEventFlag(uint32_t vp, uint32_t flag);
  // A frame without an answer, for which no caller has a deadline.
  bool SendNow(LinkType type, std::span<const std::byte> payload);

  VmmSynic synic_;
  VmmLink link_;

 private:
  virtual VmmLink::Terms terms() const = 0;
  virtual void HandleRequest(GuestLinkFrame frame) = 0;
  // Eventfds that the server writes and the VMM reads.
  virtual std::vector<int> events() const = 0;
  virtual void TakeEvents() = 0;
  // The guest of before a reset is gone.
  virtual void ForgetGuest() = 0;

  absl::Status SetAllSynics(bool enabled, Deadline deadline);
  // The second half of Connect, which is not tried again.
  absl::Status HandOver(Deadline deadline);

  const GuestRam& ram_;
  const std::vector<SynicPages> pages_;
  std::vector<UniqueFd> interrupts_;  // by processor, as the next
  std::vector<UniqueFd> acks_;
};

}  // namespace vmbfs::hyperv
