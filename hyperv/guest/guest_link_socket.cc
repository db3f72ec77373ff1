#include "hyperv/guest/guest_link_socket.h"

#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::chrono::milliseconds kConnectAgain{10};

absl::Status LinkGone(const std::string& what) {
  return absl::UnavailableError(absl::StrCat("link: ", what));
}

}  // namespace

bool PollUntil(std::span<pollfd> fds, Deadline deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  const int timeout_ms = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
  return poll(fds.data(), fds.size(), timeout_ms) != 0;
}

absl::StatusOr<GuestLinkSocket> GuestLinkSocket::Connect(const std::string& path,
                                                         Deadline deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path of ", path.size(), " bytes; 1 to ",
                                                   sizeof(address.sun_path) - 1, " are possible"));
  }
  path.copy(address.sun_path, path.size());
  for (;;) {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return LinkGone(absl::StrCat("socket: ", std::strerror(errno)));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
      return GuestLinkSocket(std::move(fd));
    }
    const int error = errno;
    const bool may_come =
        error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == EINTR;
    if (!may_come || std::chrono::steady_clock::now() + kConnectAgain >= deadline) {
      return LinkGone(absl::StrCat("cannot connect to ", path, ": ", std::strerror(error)));
    }
    std::this_thread::sleep_for(kConnectAgain);
  }
}

absl::Status GuestLinkSocket::Send(LinkType type, uint16_t flags, uint64_t seq,
                                   std::span<const std::byte> payload,
                                   std::span<const int> descriptors, Deadline deadline) {
  LinkHeaderWire header{};
  header.type = static_cast<uint32_t>(type);
  header.flags = flags;
  header.nfds = static_cast<uint16_t>(descriptors.size());
  header.length = static_cast<uint32_t>(payload.size());
  header.seq = seq;
  const auto header_bytes = std::as_bytes(std::span(&header, 1));
  std::vector<std::byte> frame(header_bytes.begin(), header_bytes.end());
  frame.insert(frame.end(), payload.begin(), payload.end());

  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kLinkDescriptorsMax * sizeof(int))> control{};
  for (size_t sent = 0; sent < frame.size();) {
    iovec piece{&frame[sent], frame.size() - sent};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (sent == 0 && !descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t bytes = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (bytes >= 0) {
      sent += static_cast<size_t>(bytes);
    } else if (errno == EAGAIN) {
      pollfd writable{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
      if (!PollUntil({&writable, 1}, deadline)) {
        return absl::DeadlineExceededError("link: the server does not read its socket");
      }
    } else if (errno != EINTR) {
      return LinkGone(std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<GuestLinkFrame>> GuestLinkSocket::Receive() {
  const std::span<std::byte> header_bytes = std::span(buffer_).first(kLinkHeaderBytes);
  absl::StatusOr<bool> whole = Fill(header_bytes, header_have_);
  if (!whole.ok()) return whole.status();
  if (!*whole) return std::nullopt;
  LinkHeaderWire header;
  std::memcpy(&header, header_bytes.data(), sizeof(header));
  if (absl::Status checked = CheckHeader(header); !checked.ok()) return checked;

  const std::span<std::byte> payload =
      std::span(buffer_).subspan(kLinkHeaderBytes, header.length.value());
  whole = Fill(payload, payload_have_);
  if (!whole.ok()) return whole.status();
  if (!*whole) return std::nullopt;
  GuestLinkFrame frame{.type = static_cast<LinkType>(header.type.value()),
                       .flags = header.flags.value(),
                       .seq = header.seq.value(),
                       .payload = {payload.begin(), payload.end()},
                       .descriptors = std::exchange(descriptors_, {})};
  header_have_ = payload_have_ = 0;
  return frame;
}

// Reads no further than `bytes`, so that descriptors belong to this frame.
absl::StatusOr<bool> GuestLinkSocket::Fill(std::span<std::byte> bytes, size_t& have) {
  while (have < bytes.size()) {
    iovec piece{&bytes[have], bytes.size() - have};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kLinkDescriptorsMax * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t received = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (received == 0) return LinkGone("the server closed the connection");
    if (received < 0) {
      if (errno == EAGAIN) return false;
      if (errno == EINTR) continue;
      return LinkGone(std::strerror(errno));
    }
    if (absl::Status taken = TakeDescriptors(message); !taken.ok()) return taken;
    have += static_cast<size_t>(received);
  }
  return true;
}

absl::Status GuestLinkSocket::TakeDescriptors(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; ++index) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + index * sizeof(int), sizeof(fd));
      descriptors_.emplace_back(fd);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) return LinkGone("descriptors were truncated");
  return absl::OkStatus();
}

absl::Status GuestLinkSocket::CheckHeader(const LinkHeaderWire& header) const {
  if (header.type.value() >> 16 != kLinkMagic || header.length.value() > kLinkPayloadBytesMax ||
      (header.flags.value() & ~kLinkFlagsKnown) != 0 || header.reserved.value() != 0) {
    return LinkGone("the server sent no frame of this protocol");
  }
  if (header.nfds.value() != descriptors_.size()) {
    return LinkGone(absl::StrCat("frame with ", descriptors_.size(), " descriptors, header says ",
                                 header.nfds.value()));
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::hyperv
