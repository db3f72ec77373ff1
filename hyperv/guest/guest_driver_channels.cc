// GuestDriver's channels: GPADLs, rings, open and close.

#include <algorithm>
#include <boost/endian/buffers.hpp>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "hyperv/channel/channel.h"
#include "hyperv/guest/guest_await.h"
#include "hyperv/guest/guest_driver.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/monitor_page_format.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/ring_format.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {
namespace {

constexpr uint32_t kFirmwareGpadlIdMax = 255;

void WriteControlPage(std::span<std::byte> page, uint32_t feature_bits) {
  std::memset(page.data(), 0, page.size());
  const boost::endian::little_uint32_buf_t features(feature_bits);
  std::memcpy(&page[static_cast<size_t>(ControlWord::kFeatureBits)], &features, sizeof(features));
}

}  // namespace

void GuestDriver::Forget(const DriverChannel& channel) {
  std::erase_if(channels_, [&](const auto& entry) { return entry.second == &channel; });
}

void GuestDriver::SignalHost(const GuestOffer& offer) {
  if (options_.signal == GuestSignal::kEvent) return vmm_->SignalEvent(offer.connection_id);
  std::byte* const page = fixed_pages_->Page(ChildToParentPage()).data();
  FetchOrGuestWord(page + MonitorPendingOffset(*offer.monitor_id),
                   MonitorPendingBit(*offer.monitor_id), std::memory_order_seq_cst);
}

// Indices, mask and pending size 0. Linux sets the feature bit in both rings,
// the firmware in the one it writes.
void GuestDriver::InitialiseRings(const GuestPages& pages) {
  WriteControlPage(pages.Page(0), kRingFeaturePendingSendSize);
  WriteControlPage(pages.Page(traits_.ring_pages),
                   options_.profile == GuestProfile::kLinux ? kRingFeaturePendingSendSize : 0);
}

absl::StatusOr<uint32_t> GuestDriver::NewGpadlId() {
  if (options_.profile == GuestProfile::kLinux) return next_gpadl_id_++;
  for (uint32_t id = next_gpadl_id_; id <= kFirmwareGpadlIdMax; ++id) {
    if (!gpadls_.contains(id)) return id;
  }
  return absl::ResourceExhaustedError("all 255 GPADL handles of the firmware are in use");
}

absl::StatusOr<uint32_t> GuestDriver::CreateGpadl(uint32_t channel_id,
                                                  const std::shared_ptr<const GuestPages>& pages,
                                                  Deadline deadline) {
  absl::StatusOr<uint32_t> id = NewGpadlId();
  if (!id.ok()) return id.status();
  gpadls_[*id] = {.channel_id = channel_id, .pages = pages};
  Expect(MessageType::kGpadlCreated);
  for (const GuestMessage& message :
       BuildGpadl(options_.profile, channel_id, *id, pages->page_frames())) {
    if (absl::Status posted = Post(message, deadline); !posted.ok()) return posted;
  }
  // The server answers for a rescinded channel too; Linux does not wait for it.
  const std::optional<uint32_t> abort_with =
      traits_.releases ? std::optional(channel_id) : std::nullopt;
  absl::StatusOr<GpadlCreatedMessage> created =
      Await<GpadlCreatedMessage>(deadline, abort_with, [&](const GpadlCreatedMessage& message) {
        return message.channel_id.value() == channel_id && message.gpadl_id.value() == *id;
      });
  if (!created.ok()) return created.status();
  if (created->status.value() == kStatusSuccess) return *id;
  gpadls_.erase(*id);
  return absl::FailedPreconditionError(
      absl::StrFormat("GPADL refused with status 0x%08x", created->status.value()));
}

absl::Status GuestDriver::TeardownGpadl(uint32_t gpadl_id, Deadline deadline) {
  const uint32_t channel_id = gpadls_.at(gpadl_id).channel_id;
  Expect(MessageType::kGpadlTorndown);
  absl::Status posted = Post(BuildGpadlTeardown(channel_id, gpadl_id), deadline);
  if (!posted.ok()) return posted;
  const std::optional<uint32_t> abort_with =
      traits_.releases ? std::optional(channel_id) : std::nullopt;
  absl::StatusOr<GpadlTorndownMessage> torndown = Await<GpadlTorndownMessage>(
      deadline, abort_with,
      [&](const GpadlTorndownMessage& message) { return message.gpadl_id.value() == gpadl_id; });
  if (!torndown.ok()) return torndown.status();
  gpadls_.erase(gpadl_id);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GuestChannel>> GuestDriver::Open(const GuestOffer& offer) {
  const Deadline deadline = NextDeadline();
  if (version_ == 0) return absl::FailedPreconditionError("VMBus is not connected");
  if (channels_.contains(offer.channel_id)) {
    return absl::FailedPreconditionError("the channel is open");
  }
  if (rescinded_.contains(offer.channel_id)) {
    return absl::AbortedError("the channel's offer was revoked");
  }
  if (options_.signal == GuestSignal::kMonitor && !offer.monitor_id.has_value()) {
    return absl::FailedPreconditionError("the channel is not monitored");
  }
  absl::StatusOr<std::shared_ptr<const GuestPages>> pages =
      AllocatePages(2 * traits_.ring_pages, traits_.ring_layout);
  if (!pages.ok()) return pages.status();
  const bool linux_profile = options_.profile == GuestProfile::kLinux;
  if (!linux_profile) InitialiseRings(**pages);
  absl::StatusOr<uint32_t> gpadl_id = CreateGpadl(offer.channel_id, *pages, deadline);
  if (!gpadl_id.ok()) return gpadl_id.status();
  if (linux_profile) InitialiseRings(**pages);

  absl::StatusOr<std::unique_ptr<DriverChannel>> channel = MapChannel(offer, *gpadl_id, *pages);
  if (!channel.ok()) return channel.status();
  // Signals count from now on: they may come before the result does.
  channels_[offer.channel_id] = channel->get();
  absl::Status opened = OpenMapped(**channel, deadline);
  if (opened.ok()) return *std::move(channel);
  channel->reset();
  // Of the two, why the open failed is what the caller needs to know.
  if (absl::IsFailedPrecondition(opened)) opened.Update(TeardownGpadl(*gpadl_id, deadline));
  return opened;
}

absl::StatusOr<std::unique_ptr<DriverChannel>> GuestDriver::MapChannel(
    const GuestOffer& offer, uint32_t gpadl_id, const std::shared_ptr<const GuestPages>& pages) {
  const std::span<const uint64_t> frames = pages->page_frames();
  absl::StatusOr<RingMemory> to_host = RingMemory::Map(memory_, frames.first(traits_.ring_pages));
  if (!to_host.ok()) return to_host.status();
  absl::StatusOr<RingMemory> to_guest =
      RingMemory::Map(memory_, frames.subspan(traits_.ring_pages));
  if (!to_guest.ok()) return to_guest.status();
  absl::StatusOr<IncomingRing> incoming =
      IncomingRing::Open(*std::move(to_guest), options_.profile == GuestProfile::kFirmware
                                                   ? InterruptMasking::kNever
                                                   : InterruptMasking::kWhileBusy);
  if (!incoming.ok()) return incoming.status();
  absl::StatusOr<OutgoingRing> outgoing = OutgoingRing::Open(*std::move(to_host));
  if (!outgoing.ok()) return outgoing.status();
  auto channel = std::make_unique<Channel>(*std::move(incoming), *std::move(outgoing),
                                           [this, offer] { SignalHost(offer); });
  return std::make_unique<DriverChannel>(static_cast<ChannelDriver&>(*this), offer, gpadl_id, pages,
                                         std::move(channel));
}

absl::Status GuestDriver::OpenMapped(const DriverChannel& channel, Deadline deadline) {
  const uint32_t channel_id = channel.offer().channel_id;
  Expect(MessageType::kOpenChannelResult);
  absl::Status posted =
      Post(BuildOpenChannel(options_.profile, channel_id, channel.gpadl_id(), options_.message_vp,
                            static_cast<uint32_t>(traits_.ring_pages)),
           deadline);
  if (!posted.ok()) return posted;
  // A rescinded channel's open is never answered.
  absl::StatusOr<OpenChannelResultMessage> result = Await<OpenChannelResultMessage>(
      deadline, channel_id, [&](const OpenChannelResultMessage& message) {
        return message.channel_id.value() == channel_id &&
               message.open_id.value() == OpenIdOf(options_.profile, channel_id);
      });
  if (!result.ok()) return result.status();
  if (result->status.value() == kStatusSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("open refused with status 0x%08x", result->status.value()));
}

absl::Status GuestDriver::Close(std::unique_ptr<GuestChannel> channel) {
  const Deadline deadline = NextDeadline();
  const uint32_t channel_id = channel->offer().channel_id;
  const auto found = channels_.find(channel_id);
  // The connection it was opened on has ended, and it with it.
  if (found == channels_.end() || found->second != channel.get()) return absl::OkStatus();
  const uint32_t gpadl_id = found->second->gpadl_id();
  absl::Status posted = Post(BuildChannelId(MessageType::kCloseChannel, channel_id), deadline);
  channel.reset();
  if (!posted.ok()) return posted;
  // Linux gives a rescinded channel's GPADLs back with its id.
  if (traits_.releases && rescinded_.contains(channel_id)) return absl::OkStatus();
  absl::Status torndown = TeardownGpadl(gpadl_id, deadline);
  return absl::IsAborted(torndown) ? absl::OkStatus() : torndown;
}

absl::Status GuestDriver::Release(uint32_t channel_id) {
  if (!traits_.releases) {
    return absl::FailedPreconditionError("the firmware never releases a channel id");
  }
  if (!rescinded_.contains(channel_id)) {
    return absl::FailedPreconditionError(absl::StrCat("channel ", channel_id, " is not rescinded"));
  }
  // Forgotten first: the same id may be offered again at once.
  rescinded_.erase(channel_id);
  std::map<uint32_t, Gpadl> released;
  for (auto gpadl = gpadls_.begin(); gpadl != gpadls_.end();) {
    auto next = std::next(gpadl);
    if (gpadl->second.channel_id == channel_id) released.insert(gpadls_.extract(gpadl));
    gpadl = next;
  }
  return Post(BuildChannelId(MessageType::kRelIdReleased, channel_id), NextDeadline());
}

absl::Status GuestDriver::ModifyChannel(uint32_t channel_id, uint32_t target_vp) {
  const Deadline deadline = NextDeadline();
  if (version_ < kVersion4_1) {
    return absl::FailedPreconditionError("ModifyChannel needs VMBus 4.1");
  }
  Expect(MessageType::kModifyChannelResponse);
  absl::Status posted = Post(BuildModifyChannel(channel_id, target_vp), deadline);
  if (!posted.ok() || version_ < kVersion5_3) return posted;
  absl::StatusOr<ModifyChannelResponseMessage> response = Await<ModifyChannelResponseMessage>(
      deadline, channel_id, [&](const ModifyChannelResponseMessage& message) {
        return message.channel_id.value() == channel_id;
      });
  if (!response.ok()) return response.status();
  if (response->status.value() == kStatusSuccess) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("ModifyChannel refused with status 0x%08x", response->status.value()));
}

std::vector<std::span<std::byte>> GuestDriver::RingPages(const GuestChannel& channel) {
  const GuestPages& pages = static_cast<const DriverChannel&>(channel).pages();
  std::vector<std::span<std::byte>> spans;
  for (size_t index = 0; index < pages.page_frames().size(); ++index) {
    spans.push_back(pages.Page(index));
  }
  return spans;
}

std::span<std::byte> GuestDriver::RingBytes(const GuestChannel& channel) {
  if (traits_.ring_layout != RamLayout::kContiguous) return {};
  const GuestPages& pages = static_cast<const DriverChannel&>(channel).pages();
  return {pages.Page(0).data(), pages.page_frames().size() * kPageBytes};
}

}  // namespace vmbfs::hyperv
