// A whole link by what a VMM and its guest may send: frames valid, mangled and
// cut, descriptors of the wrong kind, bytes in guest memory. What the server sends
// is checked frame by frame; legal frames never end a connection, broken ones do;
// and whatever happened, the next connection serves a guest from HELLO to an echo.
//
// Server and VMM share one thread: an input means the same each time.
// Input: actions, a byte each and what they need.

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/guid/guid.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/link_server.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kStepsMax = 100;
constexpr size_t kRamPages = 8;    // page 1: message slots, page 2: event flags
constexpr size_t kRingPages = 10;  // five for each ring
constexpr uint64_t kRingGpa = 0x100000;

// Sends packets back, and watches that it is called in order.
class EchoDevice final : public ChannelDevice {
 public:
  EchoDevice() {
    offer_.interface_id = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
    offer_.flags = kOfferFlagNamedPipe;
  }
  const ChannelOffer& offer() const override { return offer_; }

  absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()>) override {
    Require(channel_ == nullptr, "one open at a time");
    channel_ = std::move(channel);
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Run() override {
    Require(channel_ != nullptr, "only an open device runs");
    std::array<std::byte, 1024> buffer;
    for (int packets = 0; packets < 16; ++packets) {
      const auto packet = channel_->incoming().Read(buffer);
      if (!packet.ok()) return packet.status();
      if (!packet->has_value()) return channel_->incoming().Arm();
      if (channel_->incoming().Consume()) channel_->SignalPeer();
      const auto room = channel_->outgoing().Reserve((*packet)->payload.size());
      if (!room.ok()) return room.status();
      if (!*room) continue;
      channel_->outgoing().CopyIn(0, (*packet)->payload);
      channel_->outgoing().Commit((*packet)->payload.size());
      if (channel_->outgoing().Publish()) channel_->SignalPeer();
    }
    return true;
  }
  void Close() override {
    Require(channel_ != nullptr, "only an open device is closed");
    channel_.reset();
  }
  bool open() const { return channel_ != nullptr; }

 private:
  ChannelOffer offer_;
  std::unique_ptr<Channel> channel_;
};

// The server under test, for the life of the process.
class Server {
 public:
  Server() {
    LinkOptions options;
    options.socket_path = path_;
    Require(server_.Listen(options).ok(), "the server listens");
    server_.Start();
    Require(server_.Add(device_).ok(), "a device is offered");
  }
  // Lets everything happen that can; false when nothing could.
  bool Poll() {
    constexpr int kHandlersMax = 100'000;
    int handlers = 0;
    while (context_.poll_one() > 0) Require(++handlers < kHandlersMax, "the server comes to rest");
    return handlers > 0;
  }
  const std::string& path() const { return path_; }
  LinkStatus status() const { return server_.status(); }
  const EchoDevice& device() const { return *device_; }

 private:
  ScratchFolder folder_;
  std::string path_ = folder_.Path("vm.sock");
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  LinkServer server_{context_.get_executor()};
  std::shared_ptr<EchoDevice> device_ = std::make_shared<EchoDevice>();
};

Server& TheServer() {
  static Server* const server = new Server;  // its folder goes with the sandbox
  return *server;
}

// Guest memory in a sealed memfd, seen by both sides.
class SharedPages {
 public:
  explicit SharedPages(size_t pages) : bytes_(pages * 4096), fd_(TestMemory(bytes_, SealShrink())) {
    void* mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    Require(mapped != MAP_FAILED, "memory is mapped");
    data_ = static_cast<std::byte*>(mapped);
  }
  void Clear() { std::memset(data_, 0, bytes_); }
  std::vector<std::byte> Copy() const { return {data_, data_ + bytes_}; }
  std::byte* at(size_t offset) const { return data_ + offset % bytes_; }
  uint32_t Word(size_t offset) const {
    uint32_t word = 0;
    std::memcpy(&word, data_ + offset, sizeof(word));
    return word;
  }
  void SetWord(size_t offset, uint32_t word) { std::memcpy(data_ + offset, &word, sizeof(word)); }
  size_t bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  size_t bytes_;
  UniqueFd fd_;
  std::byte* data_ = nullptr;
};

SharedPages& Ram() {
  static SharedPages pages(kRamPages);
  return pages;
}
SharedPages& Rings() {
  static SharedPages pages(kRingPages);
  return pages;
}

// How a VMM answers what the server asks.
enum class Answers { kRight, kNever, kError, kWrongDescriptor };

// One connection, and what the server may still say on it.
class Vmm {
 public:
  Vmm() : socket_(ConnectTo(TheServer().path())) {
    Ram().Clear();
    Rings().Clear();
    Require(static_cast<bool>(socket_), "the server takes connections");
    ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    Settle();
  }
  ~Vmm() {
    socket_.reset();
    TheServer().Poll();
    Require(!TheServer().status().connected, "the end of a connection is noticed");
    Require(!TheServer().device().open(), "and its channels are closed");
  }

  bool ended() const { return ended_; }
  uint64_t acknowledged() const { return acknowledged_; }
  bool NothingIsUnanswered() const { return asked_.empty(); }
  void set_answers(Answers answers) { answers_ = answers; }

  // Sends a frame; `asked`: it gets exactly one reply.
  void Send(uint32_t type, std::span<const std::byte> payload, bool asked,
            const std::vector<int>& descriptors = {}, uint16_t flags = 0) {
    const uint64_t seq = next_seq_++;
    sent_.insert(seq);
    if (asked) asked_[seq] = type;
    SendRaw(FrameBytes(type, flags, static_cast<uint16_t>(descriptors.size()), seq, payload),
            descriptors);
  }
  void SendRaw(std::span<const std::byte> bytes, const std::vector<int>& descriptors = {}) {
    if (ended_ || bytes.empty()) return;
    SendBytes(socket_, bytes, descriptors);
    Settle();
  }
  uint64_t next_seq() const { return next_seq_; }
  // What is sent from now on may be anything: replies to it are not foreseen.
  void ExpectAnything() { anything_ = true; }

  // Lets server and VMM go on until both wait.
  void Settle() {
    bool moved = true;
    while (moved) {
      moved = TheServer().Poll();
      while (!ended_ && Readable()) {
        Receive();
        moved = true;
      }
    }
  }

  void RingDoorbell(uint32_t connection) {
    const auto doorbell = doorbells_.find(connection);
    if (doorbell != doorbells_.end()) ::eventfd_write(doorbell->second.get(), 1);
    Settle();
  }

  // The guest takes a message from its slot; empty when there is none.
  std::vector<std::byte> TakeMessage() {
    constexpr size_t kSlot = 4096 + 2 * 256;
    if (Ram().Word(kSlot) == 0) return {};
    const uint32_t head = Ram().Word(kSlot + 4);
    Require((head & 0xFF) <= 240, "a message fits its slot");
    const std::byte* const from = Ram().at(kSlot + 16);
    std::vector<std::byte> message(from, from + (head & 0xFF));
    Ram().SetWord(kSlot, 0);
    if ((head & 0x100) != 0) ::eventfd_write(ack_.get(), 1);
    Settle();
    return message;
  }

 private:
  bool Readable() const {
    pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&readable, 1, 0) == 1;
  }

  void Receive() {
    std::optional<TestFrame> frame = ReceiveFrame(socket_);
    if (!frame) {
      ended_ = true;
      return;
    }
    Require(!last_frame_, "nothing follows the reason of an end");
    if (frame->reply()) {
      CheckReply(*frame);
    } else {
      Answer(*std::move(frame));
    }
  }

  void CheckReply(const TestFrame& frame) {
    Require(frame.descriptors.empty(), "no reply of the server has descriptors");
    const auto asked = asked_.find(frame.seq);
    const bool foreseen =
        asked != asked_.end() && asked->second == static_cast<uint32_t>(frame.type);
    if (foreseen) asked_.erase(asked);
    if (!frame.error()) {
      Require(foreseen || anything_, "a reply has its request, once");
      return;
    }
    Require(frame.error_code() >= 1 && frame.error_code() <= 5, "an ERROR has a known code");
    Require(frame.payload.size() == 8 + WordAt(frame.payload, 4) && frame.payload.size() <= 1032,
            "and a text of the length it says");
    const bool names_frame = sent_.contains(frame.seq) || anything_;
    const bool names_none = frame.type == LinkType::kHello && frame.seq == 0;
    Require(names_frame || names_none, "it names a frame of ours, or none");
    // Busy, not permitted, and a broken rule are last words.
    last_frame_ = frame.error_code() != 2 && frame.error_code() != 3;
  }

  void Answer(TestFrame frame) {
    std::vector<int> descriptors;
    switch (frame.type) {
      case LinkType::kPostAck: {
        Require(frame.payload.size() == 8, "POST_ACK");
        const uint64_t seq = WordAt(frame.payload, 0);
        Require(seq > acknowledged_ || anything_, "posts are acknowledged in order");
        acknowledged_ = seq;
        return;
      }
      case LinkType::kSintGet:
        Require(frame.payload.size() == 8 && WordAt(frame.payload, 4) <= 15, "SINT_GET");
        descriptors = {irq_.get(), ack_.get()};
        break;
      case LinkType::kConnSet:
        Require(frame.payload.size() == 8 && frame.descriptors.size() == 1, "CONN_SET");
        doorbells_[WordAt(frame.payload, 0)] = std::move(frame.descriptors[0]);
        break;
      case LinkType::kConnClr:
        Require(doorbells_.erase(WordAt(frame.payload, 0)) == 1, "what was set is cleared");
        break;
      default:
        Require(false, "a server sends what it may send");
    }
    if (answers_ == Answers::kNever) return;
    uint16_t flags = 1;
    std::vector<std::byte> payload;
    if (answers_ == Answers::kError) {
      flags = 5;
      descriptors.clear();
      payload = {std::byte{3}, {}, {}, {}, std::byte{2}, {}, {}, {}, std::byte{'n'}, std::byte{0}};
    } else if (answers_ == Answers::kWrongDescriptor && !descriptors.empty()) {
      descriptors = {Ram().fd()};
    }
    const auto count = static_cast<uint16_t>(descriptors.size());
    SendBytes(socket_,
              FrameBytes(static_cast<uint32_t>(frame.type), flags, count, frame.seq, payload),
              descriptors);
  }

  UniqueFd socket_;
  UniqueFd irq_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  UniqueFd ack_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  Answers answers_ = Answers::kRight;
  uint64_t next_seq_ = 1;
  std::set<uint64_t> sent_;
  std::map<uint64_t, uint32_t> asked_;  // seq -> type
  std::map<uint32_t, UniqueFd> doorbells_;
  uint64_t acknowledged_ = 0;
  bool anything_ = false;
  bool last_frame_ = false;
  bool ended_ = false;
};

LinkMemAddWire Region(uint32_t id, uint64_t gpa, uint64_t bytes) {
  LinkMemAddWire wire{};
  wire.id = id;
  wire.gpa = gpa;
  wire.bytes = bytes;
  return wire;
}

std::vector<std::byte> Hello() {
  std::vector<std::byte> payload = HelloPayload(2);
  payload[36] = std::byte{1};  // direct delivery alone
  return payload;
}

LinkSynicWire SynicOf(uint64_t simp_page, uint64_t siefp_page) {
  LinkSynicWire wire{};
  wire.scontrol = 1;
  wire.simp = simp_page * 4096 | 1;
  wire.siefp = siefp_page * 4096 | 1;
  wire.sint2 = 0x41;
  return wire;
}

LinkPostWire PostOf(uint64_t post_seq, std::span<const std::byte> message) {
  LinkPostWire wire{};
  wire.post_seq = post_seq;
  wire.connection = 1;
  wire.type = 1;
  wire.size = static_cast<uint32_t>(message.size());
  for (size_t i = 0; i < std::min<size_t>(message.size(), 240); ++i) {
    wire.payload[i] = std::to_integer<uint8_t>(message[i]);
  }
  return wire;
}

std::vector<std::byte> RingGpadl() {
  std::vector<std::byte> message = VmbusMessage(8, {1, 1, 0x10058, kRingPages * 4096, 0});
  for (uint64_t i = 0; i < kRingPages; ++i) {
    const uint64_t page_frame = (kRingGpa >> 12) + i;
    message.insert(message.end(), WireBytes(page_frame).begin(), WireBytes(page_frame).end());
  }
  return message;
}
std::vector<std::byte> OpenMessage() {
  std::vector<std::byte> message = VmbusMessage(5, {1, 77, 1, 0, kRingPages / 2});
  message.resize(148);
  return message;
}

class LinkFuzzer {
 public:
  explicit LinkFuzzer(FuzzInput& input) : input_(input) {}

  void Run() {
    const uint8_t options = input_.U8();
    vmm_.set_answers(static_cast<Answers>(options % 4));
    // A VMM that answers with the wrong descriptor is served on; no fault of ours.
    if (options < 128) SetUp();
    for (int step = 0; step < kStepsMax && !input_.empty() && !vmm_.ended(); ++step) Step();
    Require(!broken_ || vmm_.ended(), "broken rules end the connection");
    if (broken_ || doubtful_) return;
    Require(!vmm_.ended(), "legal frames do not end a connection");
    Require(vmm_.NothingIsUnanswered(), "and each that asks is answered");
  }

 private:
  void SetUp() {
    SendHello();
    const auto ram = Region(1, 0, Ram().bytes());
    const auto rings = Region(2, kRingGpa, Rings().bytes());
    Send(0x02, WireBytes(ram), true, {Ram().fd()});
    Send(0x02, WireBytes(rings), true, {Rings().fd()});
    Send(0x20, WireBytes(SynicOf(1, 2)), false);
    Send(0x04, {}, true);
  }

  // A legal frame, where one may be sent at all.
  void Send(uint32_t number, std::span<const std::byte> payload, bool need_ack,
            const std::vector<int>& descriptors = {}) {
    const bool always = number == 0x01 || number == 0x03 || (number >= 0x05 && number <= 0x07);
    if (!greeted_) broken_ = true;
    if (number == 0x04 || number == 0x06) paused_ = false;
    CheckPause([&] {
      vmm_.Send(0x564C0000 | number, payload, need_ack || always, descriptors, need_ack ? 2 : 0);
    });
    if (number == 0x05) paused_ = true;
  }
  // While the VM is paused nothing writes to its memory.
  template <typename Action>
  void CheckPause(Action action) {
    if (!paused_) return action();
    const auto ram = Ram().Copy();
    const auto rings = Rings().Copy();
    action();
    Require(ram == Ram().Copy() && rings == Rings().Copy(), "a paused VM's memory is not written");
  }
  void SendHello() {
    if (std::exchange(greeted_, true)) broken_ = true;
    Send(0x01, Hello(), false);
  }
  void SendPost(const LinkPostWire& post) {
    // The 17th that is not acknowledged breaks the rules; a reset drops those
    // that wait.
    if (posts_sent_ - std::max(vmm_.acknowledged(), posts_dropped_) > 16) broken_ = true;
    Send(0x21, WireBytes(post), false);
  }

  void Step() {
    switch (input_.Below(20)) {
      case 0:
        if (input_.OneIn(8) || !greeted_) SendHello();
        return;
      case 1:
        return AddRegion();
      case 2: {
        LinkMemDelWire wire{};
        wire.id = input_.U8() % 4u;
        return Send(0x03, WireBytes(wire), input_.OneIn(2));
      }
      case 3:
        return Send(0x04 + input_.Below(3), {}, input_.OneIn(2));
      case 4:
        posts_dropped_ = posts_sent_;
        return Send(0x07, std::vector<std::byte>(8), false);
      case 5: {
        LinkSynicWire wire = SynicOf(input_.U8() % 16u, input_.U8() % 16u);
        wire.scontrol = input_.U8() % 2u;
        wire.vp = input_.U8() % 2u;
        return Send(0x20, WireBytes(wire), input_.OneIn(2));
      }
      case 6:
      case 7:
      case 8:
      case 9:
      case 10:
        return SendPost(PostOf(++posts_sent_, TakeGuestMessage()));
      case 11:
        static_cast<void>(vmm_.TakeMessage());
        return;
      case 12: {
        LinkSignalWire wire{};
        wire.connection = input_.U8();
        wire.flag = input_.U8();
        return Send(0x22, WireBytes(wire), input_.OneIn(2));
      }
      case 13: {
        LinkSintWire wire{};
        wire.sint = input_.U8() % 16u;
        return Send(0x23, WireBytes(wire), input_.OneIn(2));
      }
      case 14:
        return CheckPause([&] { vmm_.RingDoorbell(0x2001); });
      case 15:
      case 16:
        return WriteGuestMemory();
      case 17:
        return SendReserved();
      case 18:
        return SendAnything();
      default:
        return BreakARule();
    }
  }

  void AddRegion() {
    LinkMemAddWire wire = Region(input_.U8() % 4u, input_.U8() * uint64_t{2048}, 4096);
    wire.bytes = input_.OneIn(4) ? input_.U64() : input_.U8() * uint64_t{2048};
    wire.file_offset = input_.OneIn(4) ? input_.U64() : 0;
    wire.flags = input_.OneIn(8) ? input_.U8() : 0;
    const std::array<int, 3> descriptors = {Ram().fd(), Rings().fd(), event_.get()};
    Send(0x02, WireBytes(wire), input_.OneIn(2), {descriptors[input_.Below(3)]});
  }

  std::vector<std::byte> TakeGuestMessage() {
    switch (input_.Below(10)) {
      case 0:
        return VmbusMessage(14, {0x00040000, 0, 0, 0, 0, 0, 0, 0});
      case 1:
        return VmbusMessage(3, {});
      case 2:
        return RingGpadl();
      case 3:
        return OpenMessage();
      case 4:
        return VmbusMessage(7, {1});
      case 5:
        return VmbusMessage(16, {});
      case 6:
        return VmbusMessage(11, {1, 1});
      case 7:
        return VmbusMessage(22, {1, input_.U8() % 3u});
      case 8:
        return VmbusMessage(14, {0x00060000, input_.U8(), 0, 0, 0, 0, 0, 0});
      default: {
        const auto bytes = input_.Bytes(input_.U8());
        return {bytes.begin(), bytes.end()};
      }
    }
  }

  void WriteGuestMemory() {
    if (input_.OneIn(2)) {  // a control word of a ring, or a packet in the first
      const size_t ring = input_.OneIn(2) ? 0 : kRingPages / 2 * 4096;
      Rings().SetWord(ring + input_.Below(4) * 4, input_.U8() * 8u);
      return;
    }
    SharedPages& pages = input_.OneIn(2) ? Ram() : Rings();
    const size_t offset = input_.U16() % (pages.bytes() - 64);
    const auto bytes = input_.Bytes(input_.U8() % 64u);
    if (!bytes.empty()) std::memcpy(pages.at(offset), bytes.data(), bytes.size());
  }

  // A type that version 1.0 reserves is refused or ignored, or served by a later
  // one; either way its payload here is nonsense.
  void SendReserved() {
    static constexpr std::array<uint32_t, 4> kNumbers = {0x51, 0x54, 0x55, 0x50};
    doubtful_ = true;
    vmm_.ExpectAnything();
    vmm_.Send(0x564C0000 | kNumbers[input_.Below(4)], input_.Bytes(input_.U8()), false);
  }

  void SendAnything() {
    doubtful_ = true;
    vmm_.ExpectAnything();
    const uint32_t number = input_.U8();
    const auto flags = static_cast<uint16_t>(input_.OneIn(4) ? input_.U8() : input_.U8() % 6);
    std::vector<int> descriptors(input_.Below(8) == 0 ? input_.Below(6) : 0, Rings().fd());
    std::vector<std::byte> frame =
        FrameBytes(0x564C0000 | number, flags, static_cast<uint16_t>(descriptors.size()),
                   input_.U8(), input_.Bytes(input_.U8()));
    const uint8_t mangling = input_.U8();
    if (mangling < 64) frame[input_.U8() % frame.size()] ^= static_cast<std::byte>(mangling);
    if (mangling > 200) frame.resize(input_.U8() % frame.size());
    vmm_.SendRaw(frame, descriptors);
  }

  void BreakARule() {
    broken_ = true;
    std::vector<std::byte> frame = FrameBytes(0x564C0005, 2, 0, vmm_.next_seq(), {});
    std::vector<int> descriptors;
    switch (input_.Below(6)) {
      case 0:
        frame[2] = std::byte{0x4D};  // not the link's magic
        break;
      case 1:
        frame[0] = std::byte{0x33};  // POST_ACK is the server's
        break;
      case 2:
        frame[12] = std::byte{1};  // reserved
        break;
      case 3:
        descriptors = {event_.get()};  // unannounced
        break;
      case 4:
        frame[9] = std::byte{0x10};  // more than a frame holds
        break;
      default:
        frame[4] = std::byte{3};  // REPLY and NEED_ACK
    }
    vmm_.ExpectAnything();
    vmm_.SendRaw(frame, descriptors);
  }

  FuzzInput& input_;
  Vmm vmm_;
  UniqueFd event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  bool greeted_ = false;
  bool broken_ = false;    // a rule was broken: the connection has to end
  bool doubtful_ = false;  // it may
  bool paused_ = false;
  uint64_t posts_sent_ = 0;
  uint64_t posts_dropped_ = 0;  // up to this one
};

// A new VMM with a new guest, from HELLO to a packet that comes back.
void ServeNextConnection() {
  Vmm vmm;
  const auto ask = [&](uint32_t number, std::span<const std::byte> payload,
                       const std::vector<int>& descriptors = {}) {
    vmm.Send(0x564C0000 | number, payload, true, descriptors, 2);
    Require(vmm.NothingIsUnanswered() && !vmm.ended(), "a new connection is served");
  };
  uint64_t posts = 0;
  const auto post = [&](std::span<const std::byte> message) {
    vmm.Send(0x564C0021, WireBytes(PostOf(++posts, message)), false);
    Require(vmm.acknowledged() == posts, "its posts are taken");
  };
  const auto expect = [&](uint32_t type) {
    const std::vector<std::byte> message = vmm.TakeMessage();
    Require(WordAt(message, 0) == type, "its guest gets its messages");
    return message;
  };
  ask(0x01, Hello());
  ask(0x02, WireBytes(Region(1, 0, Ram().bytes())), {Ram().fd()});
  ask(0x02, WireBytes(Region(2, kRingGpa, Rings().bytes())), {Rings().fd()});
  ask(0x20, WireBytes(SynicOf(1, 2)));
  ask(0x04, {});
  Require(TheServer().status().memory_regions == 2, "its memory is there, and no other");
  post(VmbusMessage(14, {0x00040000, 0, 0, 0, 0, 0, 0, 0}));
  expect(15);
  post(VmbusMessage(3, {}));
  const uint32_t connection = WordAt(expect(1), 192);
  expect(4);
  post(RingGpadl());
  Require(WordAt(expect(10), 16) == 0, "its GPADL is accepted");
  post(OpenMessage());
  Require(WordAt(expect(6), 16) == 0, "its channel opens");

  // One packet of 8 bytes into the first ring, and back in the second.
  constexpr size_t kData = 4096;
  constexpr size_t kSecondRing = kRingPages / 2 * 4096;
  Rings().SetWord(kData, 6 | 2 << 16);
  Rings().SetWord(kData + 4, 3);
  Rings().SetWord(kData + 16, 0xC0FFEE);
  Rings().SetWord(0, 32);
  vmm.RingDoorbell(connection);
  Require(Rings().Word(kSecondRing) == 32, "its device answers");
  Require(Rings().Word(kSecondRing + kData + 16) == 0xC0FFEE, "what it was sent");
  Require((Ram().Word(2 * 4096 + 2 * 256) & 2) != 0, "and the guest is signalled");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  LinkFuzzer(input).Run();
  ServeNextConnection();
  return 0;
}

}  // namespace vmbfs::hyperv
