// The VMM's end of the link as the kit needs it: every interrupt source is lent
// to the server, and every interrupt counted.
//
// Trust: the server is under test; a frame that breaks the format ends the link.
// Format: hyperv/link/README.md.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"

namespace vmbfs::conformance {

using hyperv::Deadline;

// Guest physical addresses of one processor's SynIC pages.
struct SynicPages {
  uint64_t message_page_gpa = 0;
  uint64_t event_flags_page_gpa = 0;
};

// Thread safety: one thread.
// Bounds: kLinkPostsMax posts on their way; 16 interrupt sources a processor.
class LinkVmm {
 public:
  // Connects, says HELLO, hands RAM and the enabled SynICs over, and starts.
  // Tries again while nobody listens or the server holds the connection before.
  static absl::StatusOr<std::unique_ptr<LinkVmm>> Connect(const std::string& socket_path,
                                                          const hyperv::GuestRam& ram,
                                                          std::vector<SynicPages> processors,
                                                          Deadline deadline);

  // HvPostMessage; false while kLinkPostsMax posts are on their way.
  bool Post(uint32_t connection, std::span<const std::byte> message);
  size_t posts_on_their_way() const { return posts_sent_ - posts_acknowledged_; }

  // HvSignalEvent: through the connection's eventfd where the server gave one.
  void Signal(uint32_t connection);
  // The same by a frame, as for a connection that has no eventfd.
  void SignalByFrame(uint32_t connection);
  void EndOfMessage(uint32_t vp, uint32_t sint);

  // Sleeps until an interrupt or a frame came.
  // Errors: kDeadlineExceeded; any other: the link is of no use any more.
  absl::Status Wait(Deadline deadline);
  // Resets the VM; its SynICs are off until EnableSynics.
  absl::Status Reset(Deadline deadline);
  absl::Status EnableSynics() { return SendSynics(true); }

  uint64_t interrupts(uint32_t vp, uint32_t sint) const;
  // The process that listens at the socket; nullopt where the system does not say.
  std::optional<pid_t> server_process() const;

 private:
  struct Source {
    hyperv::UniqueFd interrupt;  // the server raises the SINT
    hyperv::UniqueFd ack;        // we tell of EOM
    uint64_t interrupts = 0;
  };

  LinkVmm(hyperv::GuestLinkSocket socket, std::vector<SynicPages> processors);

  absl::Status Start(const hyperv::GuestRam& ram, Deadline deadline);
  absl::Status SendSynics(bool enabled);
  absl::Status Send(hyperv::LinkType type, uint16_t flags, std::span<const std::byte> payload,
                    std::span<const int> descriptors = {});
  absl::Status Ask(hyperv::LinkType type, uint16_t flags, std::span<const std::byte> payload,
                   std::span<const int> descriptors, Deadline deadline);
  absl::Status ReceiveFrames();
  absl::Status Handle(hyperv::GuestLinkFrame frame);
  absl::Status LendSource(const hyperv::GuestLinkFrame& frame);

  hyperv::GuestLinkSocket socket_;
  std::vector<SynicPages> processors_;
  std::map<std::pair<uint32_t, uint32_t>, Source> sources_;  // by VP and SINT
  std::map<uint32_t, hyperv::UniqueFd> connections_;
  uint64_t next_seq_ = 1;
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;
  std::optional<hyperv::GuestLinkFrame> answer_;
};

}  // namespace vmbfs::conformance
