#include "hyperv/link/test_vmm.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {
namespace {

std::atomic_ref<uint32_t> Word(std::byte* at) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(at));
}

template <typename Wire>
Wire FromPayload(const TestFrame& frame) {
  Wire wire{};
  std::memcpy(&wire, frame.payload.data(), std::min(sizeof(wire), frame.payload.size()));
  return wire;
}

}  // namespace

TestVmmBase::TestVmmBase(const std::string& path, int ram_seals, int ring_seals)
    : socket_(ConnectTo(path)),
      ram_fd_(TestMemory(kPages * 4096, ram_seals)),
      ring_fd_(TestMemory(kRingPages * 4096, ring_seals)) {
  void* mapped =
      ::mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd_.get(), 0);
  if (mapped == MAP_FAILED) ::abort();
  ram_ = static_cast<std::byte*>(mapped);
}
TestVmmBase::~TestVmmBase() { ::munmap(ram_, kPages * 4096); }

bool TestVmmBase::Greet(std::span<const std::byte> hello) {
  const auto hello_ok = Ask(LinkType::kHello, hello);
  if (!hello_ok || hello_ok->error()) return false;
  LinkMemAddWire ram{};
  ram.id = kRamRegion;
  ram.bytes = kPages * 4096;
  LinkMemAddWire rings{};
  rings.id = kRingRegion;
  rings.gpa = kRingGpa;
  rings.bytes = kRingPages * 4096;
  const auto ram_reply = Ask(LinkType::kMemAdd, WireBytes(ram), {ram_fd_.get()});
  const auto rings_reply = Ask(LinkType::kMemAdd, WireBytes(rings), {ring_fd_.get()});
  return ram_reply && !ram_reply->error() && rings_reply && !rings_reply->error();
}

uint64_t TestVmmBase::Send(LinkType type, std::span<const std::byte> payload, uint16_t flags,
                           const std::vector<int>& descriptors) {
  const uint64_t seq = next_seq_++;
  SendBytes(socket_,
            FrameBytes(static_cast<uint32_t>(type), flags,
                       static_cast<uint16_t>(descriptors.size()), seq, payload),
            descriptors);
  return seq;
}

std::optional<TestFrame> TestVmmBase::WaitForReply(uint64_t seq) {
  if (!WaitUntil([&] { return replies_.contains(seq); })) return std::nullopt;
  TestFrame reply = std::move(replies_[seq]);
  replies_.erase(seq);
  return reply;
}

std::optional<TestFrame> TestVmmBase::Ask(LinkType type, std::span<const std::byte> payload,
                                          const std::vector<int>& descriptors) {
  return WaitForReply(Send(type, payload, kLinkFlagNeedAck, descriptors));
}

bool TestVmmBase::WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (!condition()) {
    if (ended_ || std::chrono::steady_clock::now() > deadline) return false;
    ServeOne(1);
    Look();
  }
  return true;
}

// Handles one frame, or returns after the time.
void TestVmmBase::ServeOne(int timeout_ms) {
  pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&readable, 1, timeout_ms) != 1) return;
  std::optional<TestFrame> frame = ReceiveFrame(socket_);
  if (!frame) {
    ended_ = true;
  } else if (frame->reply()) {
    replies_[frame->seq] = *std::move(frame);
  } else if (!Answer(*frame)) {
    ended_ = true;
  }
}

void TestVmmBase::Reply(const TestFrame& request, std::span<const std::byte> payload,
                        const std::vector<int>& descriptors) {
  SendBytes(socket_,
            FrameBytes(static_cast<uint32_t>(request.type), kLinkFlagReply,
                       static_cast<uint16_t>(descriptors.size()), request.seq, payload),
            descriptors);
}

bool TestVmm::SetUp() {
  if (!Greet(HelloPayload(vp_count_, "test", kLinkLevelSynic, delivery_mode_))) return false;
  for (uint32_t vp = 0; vp < vp_count_; ++vp) SetSynic(vp, true);
  return Ask(LinkType::kStart, {}).has_value();
}

void TestVmm::SetSynic(uint32_t vp, bool enabled) {
  enabled_[vp] = enabled;
  LinkSynicWire wire{};
  wire.vp = vp;
  wire.scontrol = enabled ? 1 : 0;
  wire.simp = (2 * vp + 1) * 4096 | 1;
  wire.siefp = (2 * vp + 2) * 4096 | 1;
  wire.sint2 = 0x41;
  Send(LinkType::kSynic, WireBytes(wire));
}

TestVmm::Sint& TestVmm::SintOf(uint32_t vp) {
  Sint& sint = sints_[vp];
  if (!sint.irq) {
    sint.irq.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    sint.ack.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  return sint;
}

bool TestVmm::Answer(TestFrame& frame) {
  switch (frame.type) {
    case LinkType::kPostAck:
      acknowledged_ = FromPayload<LinkPostAckWire>(frame).post_seq.value();
      return true;
    case LinkType::kSintGet: {
      if (delivery_mode_ != kLinkDeliveryDirect) return false;
      const uint32_t vp = FromPayload<LinkSintWire>(frame).vp.value();
      if (unanswered_.contains({frame.type, vp})) return true;
      const Sint& sint = SintOf(vp);
      Reply(frame, {}, {sint.irq.get(), sint.ack.get()});
      return true;
    }
    case LinkType::kMsgSend: {
      LinkMsgSendResultWire result{};
      result.result = static_cast<uint32_t>(Deliver(FromPayload<LinkMsgSendWire>(frame)));
      Reply(frame, WireBytes(result));
      return true;
    }
    case LinkType::kEventGet: {
      const auto event = FromPayload<LinkEventGetWire>(frame);
      if (event.sint.value() != 2) return false;
      const UniqueFd memory = TestMemory(4096, 0);  // not an eventfd
      UniqueFd& fd = events_[{event.vp.value(), event.flag.value()}];
      fd.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
      Reply(frame, {}, {refuse_events_ ? memory.get() : fd.get()});
      return true;
    }
    case LinkType::kConnSet: {
      const uint32_t connection = FromPayload<LinkConnWire>(frame).connection.value();
      if (unanswered_.contains({frame.type, connection})) return true;
      doorbells_[connection] = std::move(frame.descriptors.at(0));
      Reply(frame, {});
      return true;
    }
    case LinkType::kConnClr:
      doorbells_.erase(FromPayload<LinkConnWire>(frame).connection.value());
      Reply(frame, {});
      return true;
    default:
      return false;
  }
}

// MEDIATED: as the server does it with DIRECT.
LinkMsgResult TestVmm::Deliver(const LinkMsgSendWire& message) {
  ++messages_sent_;
  const uint32_t vp = message.vp.value();
  if (!enabled_[vp]) return LinkMsgResult::kNoMessagePage;
  std::byte* const slot = Slot(vp);
  if (Word(slot).load() != 0) {
    Word(slot + 4).fetch_or(0x100);
    if (Word(slot).load() != 0) return LinkMsgResult::kBusy;
  }
  CopyToGuest(slot + 16, reinterpret_cast<const std::byte*>(message.payload), message.size.value());
  Word(slot + 4).store(message.size.value());
  Word(slot).store(message.type.value());
  return LinkMsgResult::kDelivered;
}

// MEDIATED: events that were written become flags.
void TestVmm::Look() {
  for (const auto& [key, fd] : events_) {
    eventfd_t count = 0;
    if (::eventfd_read(fd.get(), &count) != 0) continue;
    Word(FlagsWord(key.first, key.second)).fetch_or(uint32_t{1} << (key.second % 32));
  }
}

uint64_t TestVmm::Post(std::span<const std::byte> message, uint32_t connection) {
  LinkPostWire wire{};
  const uint64_t seq = next_post_++;
  wire.post_seq = seq;
  wire.connection = connection;
  wire.type = 1;
  wire.size = static_cast<uint32_t>(message.size());
  std::memcpy(wire.payload, message.data(), std::min<size_t>(message.size(), 240));
  Send(LinkType::kPost, WireBytes(wire));
  return seq;
}

bool TestVmm::SlotIsFull(uint32_t vp) const {
  return Word(Slot(vp)).load(std::memory_order_acquire) != 0;
}

std::vector<std::byte> TestVmm::TakeMessage(uint32_t vp) {
  if (!WaitUntil([&] { return SlotIsFull(vp); })) return {};
  std::byte* const slot = Slot(vp);
  const uint32_t length = Word(slot + 4).load() & 0xFF;
  std::vector<std::byte> message(length);
  CopyFromGuest(message.data(), slot + 16, message.size());
  Word(slot).store(0, std::memory_order_seq_cst);
  const bool pending = (Word(slot + 4).load(std::memory_order_seq_cst) & 0x100) != 0;
  if (pending && delivery_mode_ == kLinkDeliveryDirect) {
    ::eventfd_write(SintOf(vp).ack.get(), 1);
  } else if (pending) {
    LinkSintWire eom{};
    eom.vp = vp;
    eom.sint = 2;
    Send(LinkType::kEom, WireBytes(eom));
  }
  return message;
}

bool TestVmm::WaitForEvent(uint32_t vp, uint32_t flag) {
  const std::atomic_ref<uint32_t> word = Word(FlagsWord(vp, flag));
  const uint32_t bit = uint32_t{1} << (flag % 32);
  return WaitUntil([&] { return (word.fetch_and(~bit) & bit) != 0; });
}

bool TestVmm::WaitForAck(uint64_t post_seq) {
  return WaitUntil([&] { return acknowledged_ >= post_seq; });
}

bool TestVmm::WaitForDoorbell(uint32_t connection, bool present) {
  return WaitUntil([&] { return doorbells_.contains(connection) == present; });
}

void TestVmm::RingDoorbell(uint32_t connection) {
  ::eventfd_write(doorbells_.at(connection).get(), 1);
}

bool TestVmm::ConnectBus(uint32_t version, uint32_t connection) {
  const uint32_t sint = version >= 0x00050000 ? 2 : 0;
  const auto low = [](uint64_t gpa) { return static_cast<uint32_t>(gpa); };
  const auto high = [](uint64_t gpa) { return static_cast<uint32_t>(gpa >> 32); };
  Post(VmbusMessage(14, {version, 0, sint, 0, low(parent_to_child_gpa_), high(parent_to_child_gpa_),
                         low(child_to_parent_gpa_), high(child_to_parent_gpa_)}),
       connection);
  const std::vector<std::byte> response = TakeMessage();
  if (WordAt(response, 0) != 15 || (WordAt(response, 8) & 0xFF) != 1) return false;
  Post(VmbusMessage(3, {}), connection);
  const std::vector<std::byte> offer = TakeMessage();
  if (WordAt(offer, 0) != 1 || WordAt(offer, 184) != 1) return false;
  channel_connection_ = WordAt(offer, 192);
  channel_monitor_ = WordAt(offer, 188) & 0xFFFF;
  return WordAt(TakeMessage(), 0) == 4;
}

bool TestVmm::CreateRingGpadl() {
  std::vector<std::byte> message =
      VmbusMessage(8, {1, 1, 0x00010000 | (8 + 8 * kRingPages), kRingPages * 4096, 0});
  for (uint64_t i = 0; i < kRingPages; ++i) {
    const uint64_t page_frame = (kRingGpa >> 12) + i;
    const auto bytes = WireBytes(page_frame);
    message.insert(message.end(), bytes.begin(), bytes.end());
  }
  Post(message);
  const std::vector<std::byte> created = TakeMessage();
  return WordAt(created, 0) == 10 && WordAt(created, 16) == 0;
}

uint32_t TestVmm::OpenChannel(uint32_t target_vp) {
  std::vector<std::byte> message = VmbusMessage(5, {1, 77, 1, target_vp, kRingPages / 2});
  message.resize(148);
  Post(message);
  const std::vector<std::byte> result = TakeMessage();
  if (WordAt(result, 0) != 6 || WordAt(result, 12) != 77) return 0xDEAD;
  return WordAt(result, 16);
}

}  // namespace vmbfs::hyperv
