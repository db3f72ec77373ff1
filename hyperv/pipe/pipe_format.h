// Bytes of the VMBus pipe protocol, and nothing else.
// Format: shared/specs/vmbus.md section 5.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Every pipe message is the payload of one in-band packet and starts with this.
struct PipeHeader {
  boost::endian::little_uint32_buf_t type;
  // Exact, without padding; in a kPartial see PartialSize.
  boost::endian::little_uint32_buf_t data_bytes;
};
static_assert(sizeof(PipeHeader) == 8 && alignof(PipeHeader) == 1);
static_assert(offsetof(PipeHeader, type) == 0);
static_assert(offsetof(PipeHeader, data_bytes) == 4);

enum class PipeMessageType : uint32_t {
  kData = 1,
  kPartial = 2,  // left by a byte-mode reader, never sent by a writer
  kSetUpGpaDirect = 3,
  kTearDownGpaDirect = 4,
  kIndicationComplete = 5,  // layout unknown; never sent, ignored when received
};

inline constexpr size_t kPipeDataBytesMax = 16384;

// In a kPartial the second field of PipeHeader is a pair: how many bytes the
// message had, at most 65,535, and how many of them were read, fewer than that.
struct PartialSize {
  boost::endian::little_uint16_buf_t total_bytes;
  boost::endian::little_uint16_buf_t consumed_bytes;
};
static_assert(sizeof(PartialSize) == sizeof(PipeHeader::data_bytes) && alignof(PartialSize) == 1);
static_assert(offsetof(PartialSize, total_bytes) == 0);
static_assert(offsetof(PartialSize, consumed_bytes) == 2);
static_assert(kPipeDataBytesMax <= 0xFFFF);

// Data of a kSetUpGpaDirect. The ranges follow at once, so nothing in them is
// aligned: each is a head of 8 bytes (byte count, byte offset) and the numbers
// of its pages, 8 bytes each.
struct GpaDirectSetUp {
  boost::endian::little_uint32_buf_t handle;
  boost::endian::little_uint8_buf_t writable;  // not 0: the host may write
  boost::endian::little_uint32_buf_t range_count;
};
static_assert(sizeof(GpaDirectSetUp) == 9 && alignof(GpaDirectSetUp) == 1);
static_assert(offsetof(GpaDirectSetUp, handle) == 0);
static_assert(offsetof(GpaDirectSetUp, writable) == 4);
static_assert(offsetof(GpaDirectSetUp, range_count) == 5);

// Data of a kTearDownGpaDirect.
struct GpaDirectTearDown {
  boost::endian::little_uint32_buf_t handle;
};
static_assert(sizeof(GpaDirectTearDown) == 4 && alignof(GpaDirectTearDown) == 1);
static_assert(offsetof(GpaDirectTearDown, handle) == 0);

}  // namespace vmbfs::hyperv
