// The VMM against a scripted server: each test plays the server's side itself.

#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest_synic.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

inline Deadline Now() { return std::chrono::steady_clock::now(); }
inline Deadline Soon() { return Now() + std::chrono::seconds(30); }

template <typename Payload>
Payload Parse(const GuestLinkFrame& frame) {
  const std::optional<Payload> payload = ParsePayload<Payload>(frame.payload);
  EXPECT_TRUE(payload.has_value()) << frame.payload.size() << " bytes, not " << sizeof(Payload);
  return payload.value_or(Payload{});
}

inline bool Readable(int fd) {
  pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&poll_fd, 1, 0) == 1;
}

// A server's side of one connection.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : socket_(std::move(fd)) {}

  GuestLinkFrame Next() {
    for (;;) {
      absl::StatusOr<std::optional<GuestLinkFrame>> frame = socket_.Receive();
      if (!frame.ok()) {
        ADD_FAILURE() << frame.status();
        return {};
      }
      if (*frame) return **std::move(frame);
      pollfd readable{.fd = socket_.fd(), .events = POLLIN, .revents = 0};
      if (!PollUntil({&readable, 1}, Soon())) {
        ADD_FAILURE() << "no frame came";
        return {};
      }
    }
  }

  // The next frame, which is of this type.
  GuestLinkFrame Next(LinkType type) {
    GuestLinkFrame frame = Next();
    EXPECT_EQ(static_cast<uint32_t>(frame.type), static_cast<uint32_t>(type)) << std::hex;
    return frame;
  }

  bool Silent() { return !Readable(socket_.fd()); }

  void Send(LinkType type, uint16_t flags, uint64_t seq, std::span<const std::byte> payload = {},
            std::span<const int> descriptors = {}) {
    EXPECT_TRUE(socket_.Send(type, flags, seq, payload, descriptors, Soon()).ok());
  }

  void Reply(const GuestLinkFrame& request, std::span<const std::byte> payload = {}) {
    Send(request.type, kLinkFlagReply, request.seq, payload);
  }

  void Refuse(LinkType type, uint64_t seq, LinkError code, std::string_view text) {
    LinkErrorWire error{};
    error.code = static_cast<uint32_t>(code);
    error.text_length = static_cast<uint32_t>(text.size());
    std::vector<std::byte> payload(PayloadBytes(error).begin(), PayloadBytes(error).end());
    const auto text_bytes = std::as_bytes(std::span(text));
    payload.insert(payload.end(), text_bytes.begin(), text_bytes.end());
    Send(type, kLinkFlagReply | kLinkFlagError, seq, payload);
  }

  // HELLO_OK to what was asked for.
  GuestLinkFrame AnswerHello() {
    GuestLinkFrame hello = Next(LinkType::kHello);
    LinkHelloWire asked{};
    EXPECT_GE(hello.payload.size(), sizeof(asked));
    std::memcpy(&asked, hello.payload.data(), std::min(sizeof(asked), hello.payload.size()));
    LinkHelloOkWire ok{};
    ok.major = kLinkMajor;
    ok.minor = kLinkMinor;
    ok.level = asked.level.value();
    ok.delivery_mode = asked.delivery_modes.value();
    Reply(hello, PayloadBytes(ok));
    return hello;
  }

  // The rest of a VMM's beginning.
  void TakeInitialState() {
    Reply(Next(LinkType::kMemAdd));
    while (Next().type != LinkType::kStart) {
      if (testing::Test::HasFailure()) return;
    }
  }

 private:
  GuestLinkSocket socket_;
};

class Listener {
 public:
  explicit Listener(const std::string& path) : path_(path) {
    fd_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    unlink(path.c_str());
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd_.get(), 4), 0);
  }
  ~Listener() { unlink(path_.c_str()); }

  Peer Accept() {
    pollfd waiting{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (!PollUntil({&waiting, 1}, Soon())) {
      ADD_FAILURE() << "no VMM came";
      return Peer(UniqueFd());
    }
    return Peer(UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
  }

 private:
  const std::string path_;
  UniqueFd fd_;
};

class VmmTest : public testing::Test {
 protected:
  // Short, since a socket's path is.
  VmmTest() {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/link.sock";
  }
  ~VmmTest() override { rmdir(folder_.c_str()); }

  absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(
      GuestLink link, Deadline deadline = Soon(),
      std::chrono::milliseconds hello_patience = GuestVmm::kHelloPatience) {
    return GuestVmm::Connect(path_, "test", *ram_, 2, pages_, deadline, link, hello_patience);
  }

  // Connects with `script` as the server.
  void ConnectWith(GuestLink link, const std::function<void(Peer&)>& script) {
    Listener listener(path_);
    std::thread server([&] {
      peer_ = std::make_unique<Peer>(listener.Accept());
      script(*peer_);
    });
    vmm_ = Connect(link);
    server.join();
  }

  void ConnectUsually(GuestLink link) {
    ConnectWith(link, [](Peer& peer) {
      peer.AnswerHello();
      peer.TakeInitialState();
    });
    ASSERT_TRUE(vmm_.ok()) << vmm_.status();
  }

  // Runs a call that waits for an answer, with `script` as the server.
  template <typename Call>
  void While(Call call, const std::function<void()>& script) {
    std::thread server(script);
    EXPECT_TRUE(call().ok());
    server.join();
  }

  GuestVmm& vmm() { return **vmm_; }
  void WaitOnce() { ASSERT_TRUE(vmm().Wait(Soon()).ok()); }

  // A processor as the guest sees it.
  GuestSynic Synic(uint64_t vp) {
    return GuestSynic(ram_->Page(1 + 2 * vp), ram_->Page(2 + 2 * vp));
  }

  std::string folder_ = "/tmp/guest-test-XXXXXX";
  std::string path_;
  const std::unique_ptr<GuestRam> ram_ = *GuestRam::Create(64 * kPageBytes);
  std::vector<SynicPages> pages_ = {{0x1000, 0x2000}, {0x3000, 0x4000}};
  std::unique_ptr<Peer> peer_;
  absl::StatusOr<std::unique_ptr<GuestVmm>> vmm_ = absl::UnknownError("not connected");
};

}  // namespace vmbfs::hyperv
