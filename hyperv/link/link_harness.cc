#include "hyperv/link/link_harness.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>

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

ScratchFolder::ScratchFolder() {
  // Short: a socket path holds 107 bytes.
  std::string name = "/tmp/link_test.XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) ::abort();
  folder_ = name;
}
ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

LinkHarness::LinkHarness(LinkOptions options) {
  options.socket_path = path_;
  options.on_fault = [this](const ChannelDevice&, const absl::Status& reason) {
    faults_.emplace_back(reason.message());
  };
  options.on_open_refused = [this](const ChannelDevice&, const absl::Status& reason) {
    refusals_.emplace_back(reason.message());
  };
  if (!server_->Listen(options).ok()) ::abort();
  server_->Start();
  thread_ = std::thread([this] { context_.run(); });
}

LinkHarness::~LinkHarness() {
  Do([](LinkServer& server) {
    server.Stop();
    return 0;
  });
  Do([this](LinkServer&) {
    server_.reset();
    return 0;
  });
  // The context goes on after the server: its handlers must find nothing left.
  std::promise<void> done;
  boost::asio::post(context_, [&] { done.set_value(); });
  done.get_future().wait();
  work_.reset();
  thread_.join();
}

bool LinkHarness::WaitForStatus(const std::function<bool(const LinkStatus&)>& predicate) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (std::chrono::steady_clock::now() < deadline) {
    if (predicate(status())) return true;
    std::this_thread::yield();
  }
  return false;
}

UniqueFd TestMemory(size_t bytes, int seals) {
  UniqueFd fd(::memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) ::abort();
  if (seals != 0 && ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) ::abort();
  return fd;
}
int SealShrink() { return F_SEAL_SHRINK; }

uint32_t TestFrame::error_code() const { return WordAt(payload, 0); }
std::string TestFrame::error_text() const {
  if (payload.size() < 8) return {};
  return {reinterpret_cast<const char*>(payload.data()) + 8, payload.size() - 8};
}

std::vector<std::byte> FrameBytes(uint32_t type, uint16_t flags, uint16_t nfds, uint64_t seq,
                                  std::span<const std::byte> payload) {
  LinkHeaderWire header{};
  header.type = type;
  header.flags = flags;
  header.nfds = nfds;
  header.length = static_cast<uint32_t>(payload.size());
  header.seq = seq;
  std::vector<std::byte> bytes(sizeof(header) + payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof(header));
  return bytes;
}

std::vector<std::byte> HelloPayload(uint32_t vp_count, const std::string& label) {
  LinkHelloWire wire{};
  wire.major = 1;
  wire.minor = 7;
  wire.level = 1;
  wire.features = ~uint64_t{0};
  wire.vp_count = vp_count;
  wire.delivery_modes = 3;
  wire.label_length = static_cast<uint32_t>(label.size());
  std::vector<std::byte> payload(WireBytes(wire).begin(), WireBytes(wire).end());
  for (const char c : label) payload.push_back(static_cast<std::byte>(c));
  return payload;
}

std::vector<std::byte> VmbusMessage(uint32_t type, std::initializer_list<uint32_t> words) {
  std::vector<std::byte> message(8);
  std::memcpy(message.data(), &type, sizeof(type));
  for (const uint32_t word : words) {
    message.insert(message.end(), WireBytes(word).begin(), WireBytes(word).end());
  }
  return message;
}

uint32_t WordAt(std::span<const std::byte> bytes, size_t offset) {
  uint32_t word = 0;
  if (offset + 4 <= bytes.size()) std::memcpy(&word, bytes.data() + offset, 4);
  return word;
}

UniqueFd ConnectTo(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return {};
  return fd;
}

bool SendBytes(const UniqueFd& socket, std::span<const std::byte> bytes,
               const std::vector<int>& descriptors) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 16)> control{};
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(part), descriptors.data(), sizeof(int) * descriptors.size());
  }
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

std::optional<TestFrame> ReceiveFrame(const UniqueFd& socket) {
  TestFrame frame;
  LinkHeaderWire header{};
  const auto receive = [&](std::byte* to, size_t bytes) {
    while (bytes > 0) {
      pollfd readable{.fd = socket.get(), .events = POLLIN, .revents = 0};
      if (::poll(&readable, 1, kPatienceMs) != 1) return false;
      alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
      iovec piece{to, bytes};
      msghdr message{};
      message.msg_iov = &piece;
      message.msg_iovlen = 1;
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      const ssize_t received = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
      if (received <= 0) return false;
      if (cmsghdr* part = CMSG_FIRSTHDR(&message)) {
        for (size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
          frame.descriptors.emplace_back(fd);
        }
      }
      to += received;
      bytes -= static_cast<size_t>(received);
    }
    return true;
  };
  if (!receive(reinterpret_cast<std::byte*>(&header), sizeof(header))) return std::nullopt;
  frame.type = static_cast<LinkType>(header.type.value());
  frame.flags = header.flags.value();
  frame.seq = header.seq.value();
  frame.payload.resize(std::min<size_t>(header.length.value(), kLinkFrameBytesMax));
  if (!receive(frame.payload.data(), frame.payload.size())) return std::nullopt;
  return frame;
}

TestVmm::TestVmm(const std::string& path, uint32_t vp_count, int ram_seals, int ring_seals)
    : vp_count_(vp_count),
      socket_(ConnectTo(path)),
      ram_fd_(TestMemory(kPages * 4096, ram_seals)),
      ring_fd_(TestMemory(kRingPages * 4096, ring_seals)) {
  void* mapped =
      ::mmap(nullptr, kPages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd_.get(), 0);
  if (mapped == MAP_FAILED) ::abort();
  ram_ = static_cast<std::byte*>(mapped);
}
TestVmm::~TestVmm() { ::munmap(ram_, kPages * 4096); }

bool TestVmm::SetUp() {
  if (!Ask(LinkType::kHello, HelloPayload(vp_count_))) return false;
  LinkMemAddWire ram{};
  ram.id = kRamRegion;
  ram.bytes = kPages * 4096;
  LinkMemAddWire rings{};
  rings.id = kRingRegion;
  rings.gpa = kRingGpa;
  rings.bytes = kRingPages * 4096;
  const auto ram_reply = Ask(LinkType::kMemAdd, WireBytes(ram), {ram_fd_.get()});
  const auto rings_reply = Ask(LinkType::kMemAdd, WireBytes(rings), {ring_fd_.get()});
  if (!ram_reply || ram_reply->error() || !rings_reply || rings_reply->error()) return false;
  for (uint32_t vp = 0; vp < vp_count_; ++vp) SetSynic(vp, true);
  return Ask(LinkType::kStart, {}).has_value();
}

void TestVmm::SetSynic(uint32_t vp, bool enabled) {
  LinkSynicWire wire{};
  wire.vp = vp;
  wire.scontrol = enabled ? 1 : 0;
  wire.simp = (2 * vp + 1) * 4096 | 1;
  wire.siefp = (2 * vp + 2) * 4096 | 1;
  wire.sint2 = 0x41;
  Send(LinkType::kSynic, WireBytes(wire));
}

uint64_t TestVmm::Send(LinkType type, std::span<const std::byte> payload, uint16_t flags,
                       const std::vector<int>& descriptors) {
  const uint64_t seq = next_seq_++;
  SendBytes(socket_,
            FrameBytes(static_cast<uint32_t>(type), flags,
                       static_cast<uint16_t>(descriptors.size()), seq, payload),
            descriptors);
  return seq;
}

std::optional<TestFrame> TestVmm::Ask(LinkType type, std::span<const std::byte> payload,
                                      const std::vector<int>& descriptors) {
  const uint64_t seq = Send(type, payload, kLinkFlagNeedAck, descriptors);
  if (!WaitUntil([&] { return replies_.contains(seq); })) return std::nullopt;
  TestFrame reply = std::move(replies_[seq]);
  replies_.erase(seq);
  return reply;
}

bool TestVmm::WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(kPatienceMs);
  while (!condition()) {
    if (ended_ || std::chrono::steady_clock::now() > deadline) return false;
    ServeOne(1);
  }
  return true;
}

// Handles one frame, or returns after the time.
bool TestVmm::ServeOne(int timeout_ms) {
  pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&readable, 1, timeout_ms) != 1) return false;
  std::optional<TestFrame> frame = ReceiveFrame(socket_);
  if (!frame) {
    ended_ = true;
    return false;
  }
  Answer(*std::move(frame));
  return true;
}

TestVmm::Sint& TestVmm::SintOf(uint32_t vp) {
  Sint& sint = sints_[vp];
  if (!sint.irq) {
    sint.irq.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    sint.ack.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  return sint;
}

void TestVmm::Answer(TestFrame frame) {
  if (frame.reply()) {
    replies_[frame.seq] = std::move(frame);
    return;
  }
  std::vector<int> descriptors;
  switch (frame.type) {
    case LinkType::kPostAck:
      acknowledged_ = FromPayload<LinkPostAckWire>(frame).post_seq.value();
      return;
    case LinkType::kSintGet: {
      const uint32_t vp = FromPayload<LinkSintWire>(frame).vp.value();
      if (unanswered_.contains({frame.type, vp})) return;
      const Sint& sint = SintOf(vp);
      descriptors = {sint.irq.get(), sint.ack.get()};
      break;
    }
    case LinkType::kConnSet: {
      const uint32_t connection = FromPayload<LinkConnWire>(frame).connection.value();
      if (unanswered_.contains({frame.type, connection})) return;
      doorbells_[connection] = std::move(frame.descriptors.at(0));
      break;
    }
    case LinkType::kConnClr:
      doorbells_.erase(FromPayload<LinkConnWire>(frame).connection.value());
      break;
    default:
      ended_ = true;  // it has no business to send anything else
      return;
  }
  SendBytes(socket_,
            FrameBytes(static_cast<uint32_t>(frame.type), kLinkFlagReply,
                       static_cast<uint16_t>(descriptors.size()), frame.seq, {}),
            descriptors);
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
  return Word(page(2 * vp + 1) + 2 * 256).load(std::memory_order_acquire) != 0;
}

std::vector<std::byte> TestVmm::TakeMessage(uint32_t vp) {
  if (!WaitUntil([&] { return SlotIsFull(vp); })) return {};
  std::byte* const slot = page(2 * vp + 1) + 2 * 256;
  const uint32_t length = Word(slot + 4).load() & 0xFF;
  std::vector<std::byte> message(length);
  CopyFromGuest(message.data(), slot + 16, message.size());
  Word(slot).store(0, std::memory_order_seq_cst);
  const bool pending = (Word(slot + 4).load(std::memory_order_seq_cst) & 0x100) != 0;
  if (pending) ::eventfd_write(SintOf(vp).ack.get(), 1);
  return message;
}

bool TestVmm::WaitForEvent(uint32_t vp, uint32_t flag) {
  const std::atomic_ref<uint32_t> word = Word(page(2 * vp + 2) + 2 * 256 + flag / 32 * 4);
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
  Post(VmbusMessage(14, {version, 0, sint, 0, 0, 0, 0, 0}), connection);
  const std::vector<std::byte> response = TakeMessage();
  if (WordAt(response, 0) != 15 || (WordAt(response, 8) & 0xFF) != 1) return false;
  Post(VmbusMessage(3, {}), connection);
  const std::vector<std::byte> offer = TakeMessage();
  if (WordAt(offer, 0) != 1 || WordAt(offer, 184) != 1) return false;
  channel_connection_ = WordAt(offer, 192);
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
