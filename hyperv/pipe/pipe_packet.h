// The header of a pipe message, out of its packet.
//
// Trust: the packet is the peer's. Its header is copied once, and what comes
// back is the copy. Format: pipe_format.h.
// Thread safety: that of the ring; no state.

#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/pipe/pipe_format.h"
#include "hyperv/ring/incoming_ring.h"

namespace vmbfs::hyperv {

// Copies the header of the packet that `ring` has next. Its type and its size
// are not checked yet.
//
// Errors: kInvalidArgument when the packet cannot be a pipe's: not in-band, a
// completion asked for, or too short.
absl::StatusOr<PipeHeader> ReadPipeHeader(const IncomingRing& ring, const PacketView& packet);

// Whether `data_bytes` of data, as a header says, lie within its packet.
// Errors: kInvalidArgument.
absl::Status CheckPipeDataBytes(const PacketView& packet, size_t data_bytes);

absl::Status UnknownPipeMessageType(uint32_t type);

}  // namespace vmbfs::hyperv
