#include "hyperv/link/test_channel_vmm.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

namespace vmbfs::hyperv {
namespace {

LinkChannelWire ChannelPayload(uint32_t channel) {
  LinkChannelWire wire{};
  wire.channel = channel;
  return wire;
}

uint64_t Taken(const UniqueFd& event) {
  eventfd_t count = 0;
  return ::eventfd_read(event.get(), &count) == 0 ? count : 0;
}

UniqueFd NewEvent() { return UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

}  // namespace

std::vector<uint64_t> RingFrames() {
  std::vector<uint64_t> frames;
  for (uint64_t i = 0; i < TestVmmBase::kRingPages; ++i) {
    frames.push_back((TestVmmBase::kRingGpa >> 12) + i);
  }
  return frames;
}

bool TestChannelVmm::SetUp(bool start) {
  return Greet(HelloPayload(kVps, "test", kLinkLevelChannel)) && (!start || Start());
}

bool TestChannelVmm::Answer(TestFrame& frame) {
  switch (frame.type) {
    case LinkType::kOffer:
      offers_.push_back(std::move(frame));
      if (!hold_) AnswerOffer(offers_.size() - 1, next_channel_++);
      return true;
    case LinkType::kRevoke:
      revoked_.push_back(WordAt(frame.payload, 0));
      held_revoke_ = std::move(frame);
      if (!hold_) AnswerRevoke();
      return true;
    default:
      return false;
  }
}

bool TestChannelVmm::WaitForOffers(size_t count) {
  return WaitUntil([&] { return offers_.size() >= count; });
}

bool TestChannelVmm::WaitForRevokes(size_t count) {
  return WaitUntil([&] { return revoked_.size() >= count; });
}

void TestChannelVmm::AnswerOffer(size_t index, uint32_t channel) {
  LinkOfferOkWire ok{};
  ok.channel = channel;
  ok.relid = static_cast<uint32_t>(index + 1);
  ok.connection = 0x2000 + static_cast<uint32_t>(index + 1);
  Reply(offers_.at(index), WireBytes(ok));
}

void TestChannelVmm::RefuseOffer(size_t index) {
  LinkErrorWire error{};
  error.code = 3;
  SendBytes(socket(),
            FrameBytes(static_cast<uint32_t>(LinkType::kOffer), kLinkFlagReply | kLinkFlagError, 0,
                       offers_.at(index).seq, WireBytes(error)));
}

void TestChannelVmm::AnswerRevoke() { Reply(held_revoke_.value(), {}); }

std::optional<TestFrame> TestChannelVmm::AddGpadl(uint32_t channel, uint32_t gpadl,
                                                  const std::vector<uint64_t>& page_frames,
                                                  uint32_t range_count) {
  LinkGpadlAddWire wire{};
  wire.channel = channel;
  wire.gpadl = gpadl;
  wire.range_count = range_count;
  wire.pages = static_cast<uint32_t>(page_frames.size());
  std::vector<std::byte> payload(WireBytes(wire).begin(), WireBytes(wire).end());
  const auto list = std::as_bytes(std::span(page_frames));
  if (page_frames.size() <= kLinkInlinePageFramesMax) {
    payload.insert(payload.end(), list.begin(), list.end());
    return Ask(LinkType::kGpadlAdd, payload);
  }
  const UniqueFd memfd = TestMemory(list.size(), 0);
  if (::pwrite(memfd.get(), list.data(), list.size(), 0) != static_cast<ssize_t>(list.size())) {
    return std::nullopt;
  }
  ::fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
  return Ask(LinkType::kGpadlAdd, payload, {memfd.get()});
}

bool TestChannelVmm::AddRing(uint32_t channel) {
  return Status(AddGpadl(channel, kRingGpadl, RingFrames())) == kLinkStatusSuccess;
}

std::optional<TestFrame> TestChannelVmm::DeleteGpadl(uint32_t channel, uint32_t gpadl) {
  LinkGpadlDelWire wire{};
  wire.channel = channel;
  wire.gpadl = gpadl;
  return Ask(LinkType::kGpadlDel, WireBytes(wire));
}

LinkOpenWire TestChannelVmm::OpenPayload(uint32_t channel, uint32_t target_vp) {
  LinkOpenWire wire{};
  wire.channel = channel;
  wire.open_id = 77;
  wire.ring_gpadl = kRingGpadl;
  wire.downstream_page_offset = kRingPages / 2;
  wire.target_vp = target_vp;
  wire.vmbus_version = 0x00050003;
  return wire;
}

uint64_t TestChannelVmm::SendOpen(const LinkOpenWire& open) {
  host_kick_ = NewEvent();
  guest_interrupt_ = NewEvent();
  return Send(LinkType::kOpen, WireBytes(open), 0, {host_kick_.get(), guest_interrupt_.get()});
}

bool TestChannelVmm::Open(uint32_t channel, uint32_t target_vp) {
  return Status(Open(OpenPayload(channel, target_vp))) == kLinkStatusSuccess;
}

std::optional<TestFrame> TestChannelVmm::Close(uint32_t channel) {
  return Ask(LinkType::kClose, WireBytes(ChannelPayload(channel)));
}

std::optional<TestFrame> TestChannelVmm::Modify(uint32_t channel, uint32_t target_vp) {
  LinkModifyWire wire{};
  wire.channel = channel;
  wire.target_vp = target_vp;
  old_guest_interrupt_ = std::exchange(guest_interrupt_, NewEvent());
  return Ask(LinkType::kModify, WireBytes(wire), {guest_interrupt_.get()});
}

std::optional<TestFrame> TestChannelVmm::Release(uint32_t channel) {
  return Ask(LinkType::kRelease, WireBytes(ChannelPayload(channel)));
}

std::optional<TestFrame> TestChannelVmm::Reset() {
  const LinkResetWire wire{};
  return Ask(LinkType::kReset, WireBytes(wire));
}

void TestChannelVmm::Kick() { ::eventfd_write(host_kick_.get(), 1); }

uint64_t TestChannelVmm::Interrupts() { return Taken(guest_interrupt_); }
uint64_t TestChannelVmm::OldInterrupts() { return Taken(old_guest_interrupt_); }

bool TestChannelVmm::WaitForInterrupt() {
  return WaitUntil([&] { return Interrupts() > 0; });
}

uint32_t TestChannelVmm::Status(const std::optional<TestFrame>& reply) {
  if (!reply || reply->error() || reply->payload.size() != sizeof(LinkResultWire)) return 0xDEAD;
  return WordAt(reply->payload, 0);
}

}  // namespace vmbfs::hyperv
