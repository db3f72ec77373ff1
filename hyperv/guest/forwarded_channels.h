// The channels that a VMM with a VMBus of its own lets the server serve: what
// its VMBus asks of a device, said over the channel level of the link.
//
// Trust: the server's frames are checked. Rules: hyperv/link/README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/vmm_link.h"

namespace vmbfs::hyperv {

// The way of one channel: OFFER, then for each time the guest has it open
//   GPADL_ADD  OPEN  (MODIFY)  CLOSE  GPADL_DEL
// each sent when the one before was answered, but for CLOSE, which does not wait
// for OPEN's answer; in the end REVOKE from the server, and RELEASE when the guest let go.
//
// The first four public functions are BusPort's of the same names, and like
// them answer the Bus in a later call of Service.
//
// Thread safety: the VMM's thread.
// Ownership: refers to `link` and `bus`, which must outlive it.
// Bounds: as many channels as the Bus takes; for each at most one request under
// way, and beside it a MODIFY and a CLOSE.
class ForwardedChannels {
 public:
  ForwardedChannels(VmmLink& link, Bus& bus) : link_(link), bus_(bus) {}

  void OpenChannel(const OpenRequest& request);
  void CloseChannel(OfferId offer);
  void ModifyChannel(OfferId offer, uint32_t target_vp);
  void OfferReleased(OfferId offer);

  // OFFER and REVOKE of the server.
  void HandleOffer(const GuestLinkFrame& frame);
  void HandleRevoke(const GuestLinkFrame& frame);

  // The guest signalled `connection`; nothing when no open channel has it.
  void SignalHost(uint32_t connection);

  // What the server writes to interrupt the guest, and where it is to arrive.
  struct Interrupt {
    int fd = -1;
    uint32_t target_vp = 0;
    uint32_t event_flag = 0;
  };
  std::vector<Interrupt> interrupts() const;

 private:
  enum class Phase { kClosed, kAddingGpadl, kOpening, kOpen, kDeletingGpadl };

  struct ForwardedChannel {
    OfferId offer{};
    bool revoked = false;
    Phase phase = Phase::kClosed;
    // The rest is of the open that began last.
    bool closing = false;  // the Bus waits for CloseDone
    bool opening = false;  // the Bus waits for OpenDone
    absl::Status refusal;  // why OpenDone will say no
    uint32_t connection_id = 0;
    uint32_t event_flag = 0;
    uint32_t target_vp = 0;
    uint32_t downstream_page_offset = 0;
    UniqueFd host_kick;
    UniqueFd guest_interrupt;
    uint32_t moved_vp = 0;  // of a MODIFY under way, as the next
    UniqueFd moved_interrupt;
  };
  using Step = void (ForwardedChannels::*)(uint32_t number, const absl::Status&);

  ForwardedChannel& Find(OfferId offer, uint32_t& number);
  // Sends a request about a channel; its answer goes to `step`.
  void Ask(LinkType type, std::span<const std::byte> payload, std::span<const int> descriptors,
           uint32_t number, Step step);

  void AddGpadl(uint32_t number, std::span<const uint64_t> page_frames);
  void GpadlAdded(uint32_t number, const absl::Status& result);
  void Opened(uint32_t number, const absl::Status& result);
  void Modified(uint32_t number, const absl::Status& result);
  void Closed(uint32_t number, const absl::Status& result);
  void DeleteGpadl(uint32_t number);
  void GpadlDeleted(uint32_t number, const absl::Status& result);
  void LetGo(uint32_t number);

  VmmLink& link_;
  Bus& bus_;
  std::map<uint32_t, ForwardedChannel> channels_;  // by what the link calls them
  uint32_t next_number_ = 1;
};

}  // namespace vmbfs::hyperv
