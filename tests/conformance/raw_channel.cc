#include "tests/conformance/raw_channel.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "tests/conformance/vmbfs_messages.h"

namespace vmbfs::conformance {
namespace {

constexpr Milliseconds kLookAgain{2};

constexpr size_t kDescriptorBytes = 16;
constexpr size_t kPipeHeaderBytes = 8;
constexpr uint32_t kDescriptorHead = 0x00020006;  // in-band, data at 2 units

}  // namespace

RawRing::RawRing(const RawGuest& guest, std::span<const uint64_t> page_frames) {
  for (const uint64_t frame : page_frames) pages_.push_back(guest.Page(frame));
}

uint32_t RawRing::Load(size_t control_offset) const {
  return std::atomic_ref(*reinterpret_cast<uint32_t*>(&pages_[0][control_offset])).load();
}

void RawRing::Store(size_t control_offset, uint32_t value) {
  std::atomic_ref(*reinterpret_cast<uint32_t*>(&pages_[0][control_offset])).store(value);
}

std::byte& RawRing::At(uint32_t offset) const {
  offset %= size();
  return pages_[1 + offset / hyperv::kPageBytes][offset % hyperv::kPageBytes];
}

// Indices, packets and pages are all of 8-byte units, so that none is split.
void RawRing::Write(uint32_t offset, ByteView bytes) {
  for (size_t done = 0; done < bytes.size(); done += 8) {
    std::memcpy(&At(offset + static_cast<uint32_t>(done)), &bytes[done],
                std::min<size_t>(8, bytes.size() - done));
  }
}

Bytes RawRing::Read(uint32_t offset, size_t bytes) const {
  Bytes copy(bytes);
  for (size_t done = 0; done < bytes; done += 8) {
    std::memcpy(&copy[done], &At(offset + static_cast<uint32_t>(done)),
                std::min<size_t>(8, bytes - done));
  }
  return copy;
}

RawChannel::RawChannel(RawGuest& guest, const Offer& offer, const ChannelShape& shape)
    : guest_(guest),
      offer_(offer),
      page_frames_(guest.Pages(shape.to_host_pages + shape.from_host_pages, shape.layout)),
      to_host_(guest, std::span(page_frames_).first(shape.to_host_pages)),
      from_host_(guest, std::span(page_frames_).subspan(shape.to_host_pages)),
      vp_(shape.target_vp),
      flag_(offer.channel_id()),
      connection_id_(offer.connection_id()) {
  gpadl_ = {.channel_id = offer.channel_id(), .gpadl_id = guest.NewGpadlId()};
  gpadl_.words =
      RangeWords(static_cast<uint32_t>(page_frames_.size() * hyperv::kPageBytes), 0, page_frames_);
  open_ = {.channel_id = offer.channel_id(),
           .gpadl_id = gpadl_.gpadl_id,
           .target_vp = shape.target_vp,
           .downstream_page = static_cast<uint32_t>(shape.to_host_pages)};
  InitialiseRings(shape.start_index);
}

void RawChannel::InitialiseRings(uint32_t start_index) {
  for (RawRing* ring : {&to_host_, &from_host_}) {
    ring->Store(kIn, start_index);
    ring->Store(kOut, start_index);
    ring->Store(kInterruptMask, 0);
    ring->Store(kPendingSendSize, 0);
    ring->Store(kFeatureBits, 0);
  }
  to_host_.Store(kFeatureBits, 1);
  signal_deferred_ = false;
  put_index_ = published_index_ = taken_index_ = freed_index_ = start_index;
}

void RawChannel::Open() {
  const uint32_t status = guest_.OpenChannel(open_);
  guest_.verdict().Expect(status == 0, "OpenResult has status ", absl::Hex(status));
}

void RawChannel::ListenAt(uint32_t vp, uint32_t flag, uint32_t connection_id) {
  vp_ = vp;
  flag_ = flag;
  connection_id_ = connection_id;
}

void RawChannel::LeaveUnread(uint32_t bytes) {
  taken_index_ = (taken_index_ + bytes) % from_host_.size();
  from_host_.Store(kIn, taken_index_);
}

// --- guest to host ----------------------------------------------------------

bool RawChannel::Put(ByteView packet) {
  const uint32_t used = to_host_.Used(put_index_, to_host_.Load(kOut) % to_host_.size());
  const auto needed = static_cast<uint32_t>(packet.size() + kTrailerBytes);
  if (needed > to_host_.size() - used - 8) return false;
  Bytes trailer(kTrailerBytes);
  conformance::Put(trailer, 4, 4, put_index_);
  to_host_.Write(put_index_, packet);
  to_host_.Write(put_index_ + static_cast<uint32_t>(packet.size()), trailer);
  put_index_ = (put_index_ + needed) % to_host_.size();
  return true;
}

bool RawChannel::Publish() {
  const uint32_t old_in = std::exchange(published_index_, put_index_);
  to_host_.Store(kIn, put_index_);
  const uint32_t mask = to_host_.Load(kInterruptMask);
  return mask == 0 && to_host_.Load(kOut) == old_in;
}

void RawChannel::Send(ByteView packet) {
  const Deadline until = guest_.deadline();
  while (guest_.verdict().open() && !Put(packet)) {
    to_host_.Store(kPendingSendSize, static_cast<uint32_t>(packet.size() + kTrailerBytes));
    if (Put(packet)) break;
    if (!AwaitSignal(until)) guest_.verdict().Fail("the host frees no room in guest to host");
  }
  to_host_.Store(kPendingSendSize, 0);
  const bool due = Publish();
  if (std::exchange(signal_deferred_, false) || due) Signal();
}

void RawChannel::SendDeferred(ByteView packet) {
  guest_.verdict().Expect(Put(packet), "no room for a registration");
  if (Publish()) signal_deferred_ = true;
}

// --- host to guest ----------------------------------------------------------

std::optional<Bytes> RawChannel::Take() {
  Verdict& verdict = guest_.verdict();
  const uint32_t in = from_host_.Load(kIn);
  if (!verdict.open() || in == taken_index_) return std::nullopt;
  if (!verdict.Expect(in % 8 == 0 && in < from_host_.size(), "host to guest: `in` is ", in)) {
    return std::nullopt;
  }
  const uint32_t start = taken_index_;
  const uint32_t available = from_host_.Used(in, start);
  const Bytes head = from_host_.Read(start, kDescriptorBytes + kPipeHeaderBytes);
  const size_t packet_bytes = 8 * Get(head, 4, 2);
  const size_t data_bytes = Get32(head, 20);
  const bool descriptor_ok =
      Get32(head, 0) == kDescriptorHead && AllZero(ByteView(head).subspan(6, 10));
  verdict.Expect(descriptor_ok, "host packet at ", start, ": descriptor ", ToHex(head));
  verdict.Expect(packet_bytes >= head.size() && packet_bytes + kTrailerBytes <= available,
                 "host packet at ", start, " of ", packet_bytes, " bytes; ", available,
                 " are there");
  verdict.Expect(Get32(head, 16) == 1, "host pipe message of type ", Get32(head, 16));
  if (!verdict.open()) return std::nullopt;
  verdict.Expect(packet_bytes - head.size() == (data_bytes + 7) / 8 * 8, "host packet of ",
                 packet_bytes, " bytes with ", data_bytes, " bytes of data");
  const auto trailer_at = static_cast<uint32_t>(start + packet_bytes);
  const Bytes trailer = from_host_.Read(trailer_at, kTrailerBytes);
  verdict.Expect(Get(trailer, 0, 8) == uint64_t{start} << 32, "trailer of the host packet at ",
                 start, ": ", ToHex(trailer));
  if (!verdict.open()) return std::nullopt;
  const auto data_at = static_cast<uint32_t>(start + head.size());
  taken_index_ = (trailer_at + static_cast<uint32_t>(kTrailerBytes)) % from_host_.size();
  return from_host_.Read(data_at, data_bytes);
}

bool RawChannel::Free() {
  const uint32_t old_out = std::exchange(freed_index_, taken_index_);
  if (old_out == taken_index_) return false;
  from_host_.Store(kOut, taken_index_);
  const uint32_t pending = from_host_.Load(kPendingSendSize) & ~7U;
  if (pending == 0) return false;
  const uint32_t in = from_host_.Load(kIn);
  const uint32_t room = from_host_.size() - 8;
  const uint32_t old_free = room - from_host_.Used(in, old_out);
  const uint32_t new_free = room - from_host_.Used(in, taken_index_);
  return old_free < pending && new_free >= pending;
}

std::optional<Bytes> RawChannel::TakeAndFree() {
  std::optional<Bytes> data = Take();
  if (data && Free()) Signal();
  return data;
}

bool RawChannel::AwaitSignal(Deadline deadline) {
  if (vp_ != kNoInterruptVp) return guest_.AwaitFlag(vp_, flag_, deadline);
  guest_.Idle(kLookAgain);
  return std::chrono::steady_clock::now() < deadline;
}

std::optional<Bytes> RawChannel::Receive(Deadline deadline) {
  while (guest_.verdict().open()) {
    if (std::optional<Bytes> data = TakeAndFree()) return data;
    if (!AwaitSignal(deadline)) return std::nullopt;
  }
  return std::nullopt;
}

Bytes RawChannel::Exchange(ByteView message) {
  Send(PipeMessage(kPipeData, message));
  std::optional<Bytes> answer = Receive(guest_.deadline());
  guest_.verdict().Expect(answer.has_value(), "no answer to the vmbfs message ", ToHex(message));
  return answer.value_or(Bytes());
}

bool RawChannel::IsStopped(Milliseconds duration) {
  Signal();
  guest_.Idle(duration);
  return !HasPacket();
}

}  // namespace vmbfs::conformance
