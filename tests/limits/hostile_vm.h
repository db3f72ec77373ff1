// A VM whose guest and VMM are both after the server's memory: each method
// drives one thing as far as the rules of the link allow, and may be repeated.
//
// It has no driver: messages, frames and packets go out as the test wants them.
// Formats: hyperv/link/README.md, hyperv/message/message_format.h.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_messages.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/guest_synic.h"
#include "hyperv/message/message_format.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs {

// Thread safety: one thread. Errors: kDeadlineExceeded when the server does not
// do what was waited for, kUnavailable when the connection is gone.
class HostileVm {
 public:
  static constexpr uint32_t kProcessors = hyperv::kLinkVpsMax;
  // The most pages that one GPADL can have.
  static constexpr size_t kRingPages = 8190;

  // Connects as a VMM with kProcessors processors and one region of RAM, all
  // of which this process has touched, and starts.
  static absl::StatusOr<std::unique_ptr<HostileVm>> Connect(const std::string& socket_path);

  // The guest contacts anew, which ends what was, and asks for offers.
  absl::Status ConnectBus();
  size_t channels() const { return offered_.size(); }

  // A GPADL of kRingPages pages, no two of them neighbours, and the channel
  // opened on it.
  absl::Status OpenLargest(uint32_t channel_id);
  // Creates `count` GPADLs, each of `ranges` ranges of a page, and tears none
  // down; returns how many were accepted.
  absl::StatusOr<size_t> CreateGpadls(size_t count, size_t ranges);
  // Begins GPADLs of the largest size, and ends none, until one is refused;
  // returns how many were not.
  absl::StatusOr<size_t> BeginGpadls();
  // Registers `count` buffers of `pages` pages, each page a range of its own,
  // on an open channel, and waits until the server has seen all.
  absl::Status Register(uint32_t channel_id, uint32_t count, size_t pages);
  // Signals an open channel, by its doorbell and by frames.
  absl::Status FloodEvents(uint32_t channel_id, size_t count);
  // Makes the server send to each processor's each interrupt source: messages,
  // and for that of VMBus the interrupts of an open channel, moved there.
  absl::Status VisitEveryInterruptSource(uint32_t channel_id);
  // Posts without taking the answers, until kLinkPostsMax wait.
  absl::Status FillPosts();
  // Takes what FillPosts left.
  absl::Status TakeAnswers();
  // Adds regions of a page until one is refused; returns how many there are.
  absl::StatusOr<size_t> AddRegions();
  // Begins opens, each ended by a reset, whose interrupt the VMM never hands
  // over: on one processor's source, or on another's each time.
  absl::Status OpenWithoutInterrupt(size_t count, bool same_processor);
  // Begins opens, each ended by a reset, and answers no request of the server's.
  absl::Status OpenWithoutAnswers(size_t count);
  // Sends frames that are to be answered, and reads nothing, until the server
  // takes no more.
  absl::Status ReadNothing();

 private:
  HostileVm(hyperv::GuestLinkSocket socket, std::unique_ptr<hyperv::GuestRam> ram);

  // hostile_vm_link.cc: the VMM's part.
  absl::Status SetUp();
  absl::Status Send(hyperv::LinkType type, std::span<const std::byte> payload, uint16_t flags = 0,
                    std::span<const int> descriptors = {});
  // Waits for the reply; false: it was a refusal.
  absl::StatusOr<bool> Ask(hyperv::LinkType type, std::span<const std::byte> payload,
                           std::span<const int> descriptors = {});
  absl::Status PumpUntil(const std::function<bool()>& condition);
  absl::Status Pump();
  absl::Status Handle(hyperv::GuestLinkFrame frame);
  absl::Status HandleSintGet(const hyperv::GuestLinkFrame& frame);
  absl::Status Reply(const hyperv::GuestLinkFrame& request, std::span<const int> descriptors = {});

  // The guest's.
  absl::Status Post(std::span<const std::byte> message);
  absl::Status BeginOpen(uint32_t target_vp);
  absl::Status PostAll(const std::vector<hyperv::GuestMessage>& messages);
  absl::Status PostsDone();
  absl::Status TakeMessages();
  void Note(const hyperv::TakenMessage& message);
  absl::StatusOr<hyperv::RingMemory> MapRing(uint32_t channel_id, size_t pages) const;

  hyperv::GuestLinkSocket socket_;
  std::unique_ptr<hyperv::GuestRam> ram_;
  hyperv::GuestSynic synic_;  // of processor 0
  hyperv::UniqueFd interrupt_;
  hyperv::UniqueFd end_of_message_;
  hyperv::UniqueFd other_interrupts_;  // of all others

  uint64_t next_seq_ = 1;
  uint64_t posts_sent_ = 0;
  uint64_t posts_acknowledged_ = 0;
  bool take_messages_ = true;
  bool answer_ = true;
  uint32_t withheld_processor_ = 0;  // from it on no interrupt is handed over; 0: all are
  std::map<uint64_t, bool> replies_;
  std::map<uint32_t, hyperv::UniqueFd> doorbells_;  // by connection

  std::map<uint32_t, uint32_t> offered_;  // channel -> event connection
  std::map<hyperv::MessageType, uint64_t> taken_;
  std::map<hyperv::MessageType, uint64_t> taken_failed_;  // with a status that is not 0
  uint32_t next_gpadl_id_ = 1;
};

}  // namespace vmbfs
