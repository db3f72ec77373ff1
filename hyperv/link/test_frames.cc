#include "hyperv/link/test_frames.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace vmbfs::hyperv {

UniqueFd TestMemory(size_t bytes, int seals) {
  UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) ::abort();
  if (seals != 0 && ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) ::abort();
  return fd;
}
int SealShrink() { return F_SEAL_SHRINK; }

uint32_t TestFrame::error_code() const { return WordAt(payload, 0); }
std::string TestFrame::error_text() const {
  if (payload.size() < 8) return {};
  return {reinterpret_cast<const char*>(payload.data()) + 8, payload.size() - 8};
}

std::vector<std::byte> FrameBytes(uint32_t type, uint16_t flags, uint16_t nfds, uint64_t seq,
                                  std::span<const std::byte> payload) {
  LinkHeaderWire header{};
  header.type = type;
  header.flags = flags;
  header.nfds = nfds;
  header.length = static_cast<uint32_t>(payload.size());
  header.seq = seq;
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof(header));
  return bytes;
}

std::vector<std::byte> HelloPayload(uint32_t vp_count, const std::string& label, uint32_t level,
                                    uint32_t delivery_modes) {
  LinkHelloWire wire{};
  wire.major = 1;
  wire.minor = 7;
  wire.level = level;
  wire.features = ~uint64_t{0};
  wire.vp_count = vp_count;
  wire.delivery_modes = delivery_modes;
  wire.label_length = static_cast<uint32_t>(label.size());
  std::vector<std::byte> payload(WireBytes(wire).begin(), WireBytes(wire).end());
  for (const char c : label) payload.push_back(static_cast<std::byte>(c));
  return payload;
}

std::vector<std::byte> VmbusMessage(uint32_t type, std::initializer_list<uint32_t> words) {
  std::vector<std::byte> message(8);
  std::memcpy(message.data(), &type, sizeof(type));
  for (const uint32_t word : words) {
    message.insert(message.end(), WireBytes(word).begin(), WireBytes(word).end());
  }
  return message;
}

uint32_t WordAt(std::span<const std::byte> bytes, size_t offset) {
  uint32_t word = 0;
  if (offset + 4 <= bytes.size()) std::memcpy(&word, bytes.data() + offset, 4);
  return word;
}

UniqueFd ConnectTo(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return {};
  return fd;
}

bool SendBytes(const UniqueFd& socket, std::span<const std::byte> bytes,
               const std::vector<int>& descriptors) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 16)> control{};
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(part), descriptors.data(), sizeof(int) * descriptors.size());
  }
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

std::optional<TestFrame> ReceiveFrame(const UniqueFd& socket) {
  TestFrame frame;
  LinkHeaderWire header{};
  const auto receive = [&](std::byte* to, size_t bytes) {
    while (bytes > 0) {
      pollfd readable{.fd = socket.get(), .events = POLLIN, .revents = 0};
      if (::poll(&readable, 1, kPatienceMs) != 1) return false;
      alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
      iovec piece{to, bytes};
      msghdr message{};
      message.msg_iov = &piece;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t received = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
      if (received <= 0) return false;
      if (cmsghdr* part = CMSG_FIRSTHDR(&message)) {
        for (size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
          frame.descriptors.emplace_back(fd);
        }
      }
      to += received;
      bytes -= static_cast<size_t>(received);
    }
    return true;
  };
  if (!receive(reinterpret_cast<std::byte*>(&header), sizeof(header))) return std::nullopt;
  frame.type = static_cast<LinkType>(header.type.value());
  frame.flags = header.flags.value();
  frame.seq = header.seq.value();
  frame.payload.resize(std::min<size_t>(header.length.value(), kLinkFrameBytesMax));
  if (!receive(frame.payload.data(), frame.payload.size())) return std::nullopt;
  return frame;
}

}  // namespace vmbfs::hyperv
