// Frames of the link as a test makes and takes them, over a bare socket.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

// Every wait of a test ends after so long, far beyond what it takes.
inline constexpr int kPatienceMs = 60'000;

// A memfd of `bytes`, sealed with `seals`.
UniqueFd TestMemory(size_t bytes, int seals);
int SealShrink();

struct TestFrame {
  LinkType type{};
  uint16_t flags = 0;
  uint64_t seq = 0;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;

  bool reply() const { return (flags & kLinkFlagReply) != 0; }
  bool error() const { return (flags & kLinkFlagError) != 0; }
  uint32_t error_code() const;
  std::string error_text() const;
};

template <typename Wire>
std::span<const std::byte> WireBytes(const Wire& wire) {
  return std::as_bytes(std::span<const Wire, 1>(&wire, 1));
}

// The bytes of a frame, with a header as given.
std::vector<std::byte> FrameBytes(uint32_t type, uint16_t flags, uint16_t nfds, uint64_t seq,
                                  std::span<const std::byte> payload);
// Of minor 7 and all features.
std::vector<std::byte> HelloPayload(uint32_t vp_count, const std::string& label = "test",
                                    uint32_t level = kLinkLevelSynic, uint32_t delivery_modes = 3);
// A VMBus channel message of 32-bit words behind the message type.
std::vector<std::byte> VmbusMessage(uint32_t type, std::initializer_list<uint32_t> words);
uint32_t WordAt(std::span<const std::byte> bytes, size_t offset);

// Bare ends of the socket.
UniqueFd ConnectTo(const std::string& path);
bool SendBytes(const UniqueFd& socket, std::span<const std::byte> bytes,
               const std::vector<int>& descriptors = {});
// The next frame, or nothing when the connection ended.
std::optional<TestFrame> ReceiveFrame(const UniqueFd& socket);

}  // namespace vmbfs::hyperv
