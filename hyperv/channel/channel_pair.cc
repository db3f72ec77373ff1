#include "hyperv/channel/channel_pair.h"

#include <utility>

namespace vmbfs::hyperv {
namespace {

absl::StatusOr<std::unique_ptr<Channel>> OpenEnd(RingMemory incoming_memory,
                                                 InterruptMasking masking,
                                                 RingMemory outgoing_memory,
                                                 std::function<void()> signal_peer,
                                                 const GuestMemory* memory) {
  auto incoming = IncomingRing::Open(std::move(incoming_memory), masking);
  if (!incoming.ok()) return incoming.status();
  auto outgoing = OutgoingRing::Open(std::move(outgoing_memory));
  if (!outgoing.ok()) return outgoing.status();
  return std::make_unique<Channel>(*std::move(incoming), *std::move(outgoing),
                                   std::move(signal_peer), memory);
}

}  // namespace

ChannelPair::ChannelPair(ChannelPairOptions options)
    : options_(std::move(options)),
      guest_to_host_(options_.data_pages, options_.layout),
      host_to_guest_(options_.data_pages, options_.layout) {}

absl::StatusOr<std::unique_ptr<Channel>> ChannelPair::OpenHost() {
  return OpenEnd(
      GuestToHost(), InterruptMasking::kWhileBusy, HostToGuest(),
      [this] {
        ++signals_to_guest_;
        if (options_.on_guest_signalled) options_.on_guest_signalled();
      },
      options_.memory);
}

absl::StatusOr<std::unique_ptr<Channel>> ChannelPair::OpenGuest() {
  return OpenEnd(
      HostToGuest(), options_.guest_masking, GuestToHost(),
      [this] {
        ++signals_to_host_;
        if (options_.on_host_signalled) options_.on_host_signalled();
      },
      nullptr);
}

}  // namespace vmbfs::hyperv
