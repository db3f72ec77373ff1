#include "hyperv/pipe/pipe_packet.h"

#include <array>
#include <bit>

#include "absl/strings/str_cat.h"
#include "hyperv/packet/packet_format.h"

namespace vmbfs::hyperv {

absl::StatusOr<PipeHeader> ReadPipeHeader(const IncomingRing& ring, const PacketView& packet) {
  if (packet.type != PacketType::kInBand) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipe: packet of type ", static_cast<uint16_t>(packet.type),
                     "; a pipe carries in-band packets (type 6) only"));
  }
  // Nobody sends one with a pipe message, and the peer would wait for it.
  if (packet.completion_requested) {
    return absl::InvalidArgumentError("pipe: a completion is requested; a pipe has none");
  }
  if (packet.payload_bytes < sizeof(PipeHeader)) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: packet payload is ", packet.payload_bytes,
                                                   " bytes; at least ", sizeof(PipeHeader),
                                                   " are needed"));
  }
  std::array<std::byte, sizeof(PipeHeader)> bytes;
  ring.CopyPayload(packet, 0, bytes);
  return std::bit_cast<PipeHeader>(bytes);
}

absl::Status CheckPipeDataBytes(const PacketView& packet, size_t data_bytes) {
  const size_t space_bytes = packet.payload_bytes - sizeof(PipeHeader);
  if (data_bytes <= space_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("pipe: message says ", data_bytes,
                                                 " bytes of data; its packet has ", space_bytes));
}

absl::Status UnknownPipeMessageType(uint32_t type) {
  return absl::InvalidArgumentError(absl::StrCat("pipe: message type ", type, " is unknown"));
}

}  // namespace vmbfs::hyperv
