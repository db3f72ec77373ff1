// The VMM's role for one guest: hands its RAM to the server, takes its
// hypercalls, and brings it what the server has for it.
//
// Format and rules: hyperv/link/README.md, shared/specs/vmm-link.md 1.3, 1.4 and 1.7.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/vmm_synic.h"

namespace vmbfs::hyperv {

// Hypercall status codes (shared/specs/vmbus.md 1.4).
inline constexpr uint32_t kHypercallSuccess = 0;
inline constexpr uint32_t kHypercallInvalidParameter = 5;
inline constexpr uint32_t kHypercallInvalidConnectionId = 0x12;
inline constexpr uint32_t kHypercallInsufficientBuffers = 0x13;

// Thread safety: one thread, which is the VMM's and its virtual processors'.
// Errors: once the link broke, every waiting call says so with kUnavailable.
class GuestVmm {
 public:
  // For HELLO_OK at the first try; doubled after silence only, up to
  // kHelloPatienceMax, so that a slow server is reached too.
  static constexpr std::chrono::milliseconds kHelloPatience{5'000};
  static constexpr std::chrono::milliseconds kHelloPatienceMax{60'000};

  // Connects, says HELLO, hands RAM and the enabled SynICs over, and starts.
  // Tries again while no server listens, another VMM is connected, or what
  // accepts the connection does not answer HELLO: only HELLO_OK is a sign of
  // life. `ram` must outlive the result.
  //
  // Errors: kUnavailable         no HELLO_OK until the deadline;
  //         kFailedPrecondition  the server refused, with its words.
  static absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(
      const std::string& socket_path, const std::string& label, const GuestRam& ram,
      std::span<const SynicPages> processors, Deadline deadline,
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

  // Sleeps until a processor is interrupted or a frame came.
  // Errors: kDeadlineExceeded, kUnavailable.
  virtual absl::Status Wait(Deadline deadline) = 0;

  // Resets the VM: SynICs off, RESET and its answer.
  virtual absl::Status Reset(Deadline deadline) = 0;
  // The guest enabled its SynICs.
  virtual absl::Status EnableSynics(Deadline deadline) = 0;

  // From Pause's answer to Resume the server leaves the guest's memory alone.
  virtual absl::Status Pause(Deadline deadline) = 0;
  virtual absl::Status Resume(Deadline deadline) = 0;

 private:
  // The two halves of Connect: what is tried again, and what is not.
  virtual absl::Status SayHello(const std::string& label, Deadline deadline) = 0;
  virtual absl::Status HandOver(Deadline deadline) = 0;
};

}  // namespace vmbfs::hyperv
