// Bytes of the VMBus pipe protocol. Format: shared/specs/vmbus.md section 5.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Every pipe message is the payload of one in-band packet and starts with this.
struct PipeHeader {
  boost::endian::little_uint32_buf_t type;
  boost::endian::little_uint32_buf_t data_bytes;  // exact, without padding
};
static_assert(sizeof(PipeHeader) == 8 && alignof(PipeHeader) == 1);
static_assert(offsetof(PipeHeader, type) == 0);
static_assert(offsetof(PipeHeader, data_bytes) == 4);

enum class PipeMessageType : uint32_t {
  kData = 1,
  kPartial = 2,  // never on the wire in message mode
  kSetUpGpaDirect = 3,
  kTearDownGpaDirect = 4,
  kIndicationComplete = 5,  // layout unknown; never sent, ignored when received
};

inline constexpr size_t kPipeDataBytesMax = 16384;

}  // namespace vmbfs::hyperv
