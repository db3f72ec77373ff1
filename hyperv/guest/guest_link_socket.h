// The VMM's end of the link's socket: whole frames, with their descriptors.
//
// Trust: the server's bytes are checked for their form here.
// Format: hyperv/link/link_format.h, hyperv/link/README.md.

#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

using Deadline = std::chrono::steady_clock::time_point;

// Waits until one of `fds` (any number of pollfd with events set) is ready.
// false: the deadline passed. A signal counts as ready.
bool PollUntil(std::span<pollfd> fds, Deadline deadline);

struct GuestLinkFrame {
  LinkType type{};
  uint16_t flags = 0;
  uint64_t seq = 0;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;

  bool reply() const { return (flags & kLinkFlagReply) != 0; }
  bool error() const { return (flags & kLinkFlagError) != 0; }
};

// Thread safety: one thread.
// Bounds: one frame of kLinkFrameBytesMax is held.
// Errors: kUnavailable when the connection is gone or the server broke the
// frame format.
class GuestLinkSocket {
 public:
  // Connects; tries again while nobody listens.
  // Errors: kInvalidArgument for a path that is too long; kUnavailable when
  // nobody listened until the deadline, or the socket cannot be used.
  static absl::StatusOr<GuestLinkSocket> Connect(const std::string& path, Deadline deadline);

  explicit GuestLinkSocket(UniqueFd fd) : fd_(std::move(fd)) {}

  // Sends one frame whole. Waits while the socket is full: kDeadlineExceeded.
  absl::Status Send(LinkType type, uint16_t flags, uint64_t seq, std::span<const std::byte> payload,
                    std::span<const int> descriptors, Deadline deadline);

  // The next frame; nullopt when it is not there whole. Does not wait.
  absl::StatusOr<std::optional<GuestLinkFrame>> Receive();

  int fd() const { return fd_.get(); }

 private:
  absl::StatusOr<bool> Fill(std::span<std::byte> bytes, size_t& have);
  absl::Status TakeDescriptors(msghdr& message);
  absl::Status CheckHeader(const LinkHeaderWire& header) const;

  UniqueFd fd_;
  std::array<std::byte, kLinkFrameBytesMax> buffer_{};
  size_t header_have_ = 0;
  size_t payload_have_ = 0;
  std::vector<UniqueFd> descriptors_;
};

}  // namespace vmbfs::hyperv
