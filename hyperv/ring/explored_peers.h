// Other systems' code on a ring, as far as signals go, for the model check: it
// has the interface of our rings and follows shared/specs/vmbus.md 4.1, 4.3, 8.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "hyperv/packet/packet.h"
#include "hyperv/ring/explored_processor.h"

namespace vmbfs::hyperv {

enum class RingCode { kOurs, kFirmware, kLinux };

// Writes as the firmware or as Linux does: they agree on when to signal, and
// count free space in their own ways.
class PeerWriter {
 public:
  PeerWriter(ExploredMemory memory, RingCode code);

  absl::StatusOr<bool> Reserve(size_t payload_bytes);
  void CopyIn(size_t offset, std::span<const std::byte> from);
  void Commit(size_t payload_bytes, uint64_t transaction_id);
  bool Publish();
  // The firmware asks for S - 1, "completely empty"; Linux for the packet.
  absl::StatusOr<bool> RequestSpace(size_t payload_bytes);
  void ClearSpaceRequest();

  uint32_t cursor() const { return cursor_; }
  uint32_t in() const { return in_; }
  bool space_requested() const { return space_requested_; }

 private:
  ExploredMemory memory_;
  RingCode code_;
  uint32_t in_;
  uint32_t cursor_;
  bool space_requested_ = false;
};

// Reads as the firmware does, which never masks, or as Linux does, which masks
// while it reads.
class PeerReader {
 public:
  PeerReader(ExploredMemory memory, RingCode code);

  absl::StatusOr<std::optional<PacketView>> Peek();
  void CopyPayload(const PacketView& packet, size_t offset, std::span<std::byte> to) const;
  void Advance(const PacketView& packet);
  bool Consume();
  absl::StatusOr<bool> Arm();
  void Mask();

  uint32_t cursor() const { return cursor_; }
  uint32_t out() const { return out_; }
  uint32_t in() const { return in_; }
  bool masked() const { return masked_; }

 private:
  ExploredMemory memory_;
  RingCode code_;
  bool masked_ = false;
  uint32_t in_;
  uint32_t cursor_;
  uint32_t out_;
};

}  // namespace vmbfs::hyperv
