// What a VMM of any form does on the link: HELLO to START, RESET, and requests
// and replies in both directions.
//
// Trust: the server's frames are checked here for their form and order; their
// payloads by who takes them.
// Format and rules: hyperv/link/README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

template <typename Payload>
std::span<const std::byte> PayloadBytes(const Payload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

// A payload of exactly this layout.
template <typename Payload>
std::optional<Payload> ParsePayload(std::span<const std::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<Payload>);
  Payload payload;
  if (bytes.size() != sizeof(payload)) return std::nullopt;
  std::memcpy(&payload, bytes.data(), sizeof(payload));
  return payload;
}

// Of count 0; does not block.
UniqueFd NewEventFd();
// Adds 1 to an eventfd of ours or the server's; a full counter is a signal that
// stands already.
void RingEventFd(int event_fd);
// Sets the count of an eventfd that does not block to 0; false: it was 0.
bool TakeEventFd(int event_fd);

// Thread safety: the VMM's thread.
// Bounds: who asks keeps the number of unanswered requests small.
// Errors: after the first that breaks the link all calls do nothing, and
// `broken` says why (kUnavailable, or kFailedPrecondition where the server does
// not want this user).
class VmmLink {
 public:
  // A reply's payload, or the server's refusal as kFailedPrecondition. No reply
  // to a VMM carries descriptors.
  using Answer = absl::StatusOr<std::vector<std::byte>>;
  // Not called when the link breaks.
  using OnAnswer = std::function<void(Answer)>;
  // A frame that the server sent by itself.
  using OnRequest = std::function<void(GuestLinkFrame)>;

  struct Terms {
    uint32_t level = 0;
    uint32_t delivery = 0;  // the one mode that is offered; 0 at the channel level
    uint32_t vp_count = 0;
  };

  VmmLink(GuestLinkSocket socket, OnRequest on_request)
      : socket_(std::move(socket)), on_request_(std::move(on_request)) {}

  int fd() const { return socket_.fd(); }
  const absl::Status& broken() const { return broken_; }
  void Break(const absl::Status& reason);
  // The server sent a frame that breaks the rules.
  void BreakFor(const GuestLinkFrame& malformed);

  // HELLO, and an HELLO_OK that fits the terms.
  absl::Status SayHello(const Terms& terms, const std::string& label, Deadline deadline);
  absl::Status AddMemory(const GuestRam& ram, Deadline deadline);

  // A frame that is not answered.
  absl::Status Send(LinkType type, std::span<const std::byte> payload, Deadline deadline);
  // A request whose answer comes in a Service.
  void Request(LinkType type, std::span<const std::byte> payload, std::span<const int> descriptors,
               OnAnswer on_answer);
  // A request and its answer; meanwhile the server's own frames are served.
  Answer Ask(LinkType type, uint16_t flags, std::span<const std::byte> payload,
             std::span<const int> descriptors, Deadline deadline);

  void Reply(const GuestLinkFrame& request, std::span<const std::byte> payload,
             std::span<const int> descriptors);
  void Refuse(const GuestLinkFrame& request, LinkError code, std::string_view text);

  // Handles every frame that is there. Does not wait.
  void Service();

  // When a frame that no caller has a deadline for must be in the socket.
  static Deadline SendDeadline();

 private:
  void HandleReply(GuestLinkFrame frame);

  GuestLinkSocket socket_;
  const OnRequest on_request_;
  uint64_t next_seq_ = 1;
  std::map<uint64_t, OnAnswer> awaited_;  // by seq
  absl::Status broken_;                   // why the link is of no use any more
};

}  // namespace vmbfs::hyperv
