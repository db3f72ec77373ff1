#include "hyperv/channel/channel_device.h"

#include <algorithm>
#include <bit>
#include <boost/endian/buffers.hpp>

namespace vmbfs::hyperv {
namespace {

// The start of a pipe offer's user-defined area (shared/specs/vmbus.md 2.6).
struct PipeOffer {
  boost::endian::little_uint32_buf_t pipe_type;
};
static_assert(sizeof(PipeOffer) == 4 && offsetof(PipeOffer, pipe_type) == 0);

constexpr uint32_t kPipeTypeMessage = 4;

}  // namespace

ChannelOffer MessagePipeOffer(const Guid& interface_id, const Guid& instance_id) {
  ChannelOffer offer;
  offer.interface_id = interface_id;
  offer.instance_id = instance_id;
  offer.flags = kOfferFlagNamedPipe;
  PipeOffer pipe;
  pipe.pipe_type = kPipeTypeMessage;
  const auto bytes = std::bit_cast<std::array<std::byte, sizeof(PipeOffer)>>(pipe);
  std::copy(bytes.begin(), bytes.end(), offer.user_defined.begin());
  return offer;
}

}  // namespace vmbfs::hyperv
