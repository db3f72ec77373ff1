// The VMM's role for one guest: hands RAM and SynIC to the server, forwards
// hypercalls, and lends the server its interrupts.
//
// Format and rules: hyperv/link/README.md, shared/specs/vmm-link.md 1.3 and 1.7.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"

namespace vmbfs::hyperv {

// Hypercall status codes (shared/specs/vmbus.md 1.4).
inline constexpr uint32_t kHypercallSuccess = 0;
inline constexpr uint32_t kHypercallInvalidParameter = 5;
inline constexpr uint32_t kHypercallInvalidConnectionId = 0x12;
inline constexpr uint32_t kHypercallInsufficientBuffers = 0x13;

// Guest physical addresses of one processor's SynIC pages.
struct SynicPages {
  uint64_t message_page_gpa = 0;
  uint64_t event_flags_page_gpa = 0;
};

// Thread safety: one thread, which is the VMM's and its virtual processors'.
// Bounds: kLinkPostsMax posts on their way, kConnectionsMax connections.
// Errors: once the link broke, every waiting call says so with kUnavailable.
class GuestVmm {
 public:
  static constexpr size_t kConnectionsMax = 4096;

  // Connects, says HELLO, hands RAM and the enabled SynICs over, and starts.
  // Tries again while no server listens or another VMM is connected.
  //
  // Errors: kUnavailable         no server until the deadline;
  //         kFailedPrecondition  the server refused, with its words.
  static absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(const std::string& socket_path,
                                                           const std::string& label,
                                                           const GuestRam& ram,
                                                           std::span<const SynicPages> processors,
                                                           Deadline deadline);

  // HvPostMessage. Looks after the socket first, without waiting.
  uint32_t PostMessage(uint32_t vp, uint32_t connection, std::span<const std::byte> message);

  // HvSignalEvent with flag 0.
  void SignalEvent(uint32_t connection);

  // The processor wrote EOM.
  void EndOfMessage(uint32_t vp);

  // Sleeps until a processor is interrupted or a frame came.
  // Errors: kDeadlineExceeded, kUnavailable.
  absl::Status Wait(Deadline deadline);

  // Resets the VM: SynICs off, RESET and its answer.
  absl::Status Reset(Deadline deadline);
  // The guest enabled its SynICs.
  absl::Status EnableSynics(Deadline deadline);

 private:
  GuestVmm(GuestLinkSocket socket, std::span<const SynicPages> processors);

  absl::Status CreateEventFds();
  absl::Status SayHello(const std::string& label, Deadline deadline);
  absl::Status AddMemory(const GuestRam& ram, Deadline deadline);
  absl::Status SendSynics(bool enabled, Deadline deadline);
  template <typename Payload>
  absl::Status Send(LinkType type, const Payload& payload, Deadline deadline);
  absl::StatusOr<GuestLinkFrame> Ask(LinkType type, uint16_t flags,
                                     std::span<const std::byte> payload,
                                     std::span<const int> descriptors, Deadline deadline);

  void ServiceSocket();
  void Handle(GuestLinkFrame frame);
  void HandleRequest(GuestLinkFrame frame);
  void HandleSintGet(const GuestLinkFrame& frame);
  void HandleConnSet(GuestLinkFrame frame);
  void Reply(const GuestLinkFrame& request, std::span<const int> descriptors);
  void Refuse(const GuestLinkFrame& request, LinkError code, std::string_view text);
  void Break(const absl::Status& reason);

  GuestLinkSocket socket_;
  std::vector<SynicPages> processors_;
  std::vector<UniqueFd> interrupts_;  // by processor: the server raises SINT 2
  std::vector<UniqueFd> acks_;        // by processor: we tell of EOM
  std::map<uint32_t, UniqueFd> connections_;
  uint64_t next_seq_ = 1;
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;
  std::optional<uint64_t> awaited_seq_;
  std::optional<GuestLinkFrame> answer_;
  absl::Status broken_;  // why the link is of no use any more
};

}  // namespace vmbfs::hyperv
