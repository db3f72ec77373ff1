// The VMM against a scripted server: each test plays the server's side itself.

#include "hyperv/guest/guest_vmm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace vmbfs::hyperv {
namespace {

using testing::HasSubstr;

Deadline Soon() { return std::chrono::steady_clock::now() + std::chrono::seconds(10); }
Deadline Now() { return std::chrono::steady_clock::now(); }

template <typename Payload>
std::span<const std::byte> BytesOf(const Payload& payload) {
  return std::as_bytes(std::span(&payload, 1));
}

template <typename Payload>
Payload Parse(const GuestLinkFrame& frame) {
  Payload payload{};
  EXPECT_GE(frame.payload.size(), sizeof(payload));
  if (frame.payload.size() >= sizeof(payload)) {
    std::memcpy(&payload, frame.payload.data(), sizeof(payload));
  }
  return payload;
}

bool Readable(int fd) {
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

  void Send(LinkType type, uint16_t flags, uint64_t seq, std::span<const std::byte> payload = {},
            std::span<const int> descriptors = {}) {
    EXPECT_TRUE(socket_.Send(type, flags, seq, payload, descriptors, Soon()).ok());
  }

  void Refuse(LinkType type, uint64_t seq, LinkError code, std::string_view text) {
    LinkErrorWire error{};
    error.code = static_cast<uint32_t>(code);
    error.text_length = static_cast<uint32_t>(text.size());
    std::vector<std::byte> payload(BytesOf(error).begin(), BytesOf(error).end());
    const auto text_bytes = std::as_bytes(std::span(text));
    payload.insert(payload.end(), text_bytes.begin(), text_bytes.end());
    Send(type, kLinkFlagReply | kLinkFlagError, seq, payload);
  }

  GuestLinkFrame AnswerHello() {
    GuestLinkFrame hello = Next();
    LinkHelloOkWire ok{};
    ok.major = kLinkMajor;
    ok.level = kLinkLevelSynic;
    ok.delivery_mode = kLinkDeliveryDirect;
    Send(LinkType::kHello, kLinkFlagReply, hello.seq, BytesOf(ok));
    return hello;
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
    return Peer(UniqueFd(accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
  }

 private:
  const std::string path_;
  UniqueFd fd_;
};

class GuestVmmTest : public testing::Test {
 protected:
  // Short, since a socket's path is.
  GuestVmmTest() {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/link.sock";
  }
  ~GuestVmmTest() override { rmdir(folder_.c_str()); }

  absl::StatusOr<std::unique_ptr<GuestVmm>> Connect(Deadline deadline = Soon()) {
    const std::array<SynicPages, 2> processors = {SynicPages{0x1000, 0x2000},
                                                  SynicPages{0x3000, 0x4000}};
    return GuestVmm::Connect(path_, "test", *ram_, processors, deadline);
  }

  // Connects with `script` as the server, which runs until START was read.
  void ConnectWith(std::function<void(Peer&)> script) {
    Listener listener(path_);
    std::thread server([&] {
      peer_ = std::make_unique<Peer>(listener.Accept());
      script(*peer_);
    });
    vmm_ = Connect();
    server.join();
  }

  void ConnectUsually() {
    ConnectWith([](Peer& peer) {
      peer.AnswerHello();
      peer.Send(LinkType::kMemAdd, kLinkFlagReply, peer.Next().seq);
      while (peer.Next().type != LinkType::kStart) {
      }
    });
    ASSERT_TRUE(vmm_.ok()) << vmm_.status();
  }

  GuestVmm& vmm() { return **vmm_; }

  std::string folder_ = "/tmp/guest-test-XXXXXX";
  std::string path_;
  const std::unique_ptr<GuestRam> ram_ = *GuestRam::Create(64 * kPageBytes);
  std::unique_ptr<Peer> peer_;
  absl::StatusOr<std::unique_ptr<GuestVmm>> vmm_ = absl::UnknownError("not connected");
};

TEST_F(GuestVmmTest, HandsOverLabelMemoryAndSynicsBeforeStart) {
  ConnectWith([](Peer& peer) {
    const GuestLinkFrame hello = peer.AnswerHello();
    EXPECT_EQ(hello.type, LinkType::kHello);
    EXPECT_EQ(hello.payload.size(), sizeof(LinkHelloWire) + 4);
    EXPECT_EQ(Parse<LinkHelloWire>(hello).vp_count.value(), 2u);
    const GuestLinkFrame memory = peer.Next();
    EXPECT_EQ(memory.type, LinkType::kMemAdd);
    EXPECT_EQ(memory.descriptors.size(), 1u);
    EXPECT_EQ(Parse<LinkMemAddWire>(memory).bytes.value(), 64 * kPageBytes);
    peer.Send(LinkType::kMemAdd, kLinkFlagReply, memory.seq);
    for (uint32_t vp = 0; vp < 2; ++vp) {
      const GuestLinkFrame synic = peer.Next();
      EXPECT_EQ(synic.type, LinkType::kSynic);
      EXPECT_EQ(Parse<LinkSynicWire>(synic).vp.value(), vp);
      EXPECT_EQ(Parse<LinkSynicWire>(synic).simp.value(), vp == 0 ? 0x1001u : 0x3001u);
      EXPECT_EQ(Parse<LinkSynicWire>(synic).siefp.value(), vp == 0 ? 0x2001u : 0x4001u);
    }
    EXPECT_EQ(peer.Next().type, LinkType::kStart);
  });
  EXPECT_TRUE(vmm_.ok()) << vmm_.status();
}

TEST_F(GuestVmmTest, NoServerUntilTheDeadlineIsUnavailable) {
  EXPECT_EQ(Connect(Now() + std::chrono::milliseconds(50)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(GuestVmmTest, ServerThatComesLaterIsFound) {
  std::thread server([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    Listener listener(path_);
    Peer peer = listener.Accept();
    peer.AnswerHello();
    peer.Send(LinkType::kMemAdd, kLinkFlagReply, peer.Next().seq);
    while (peer.Next().type != LinkType::kStart) {
    }
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

TEST_F(GuestVmmTest, BusyServerIsTriedAgain) {
  Listener listener(path_);
  std::thread server([&] {
    {
      Peer busy = listener.Accept();
      busy.Refuse(LinkType::kHello, 0, LinkError::kBusy, "another VMM is connected");
    }
    Peer peer = listener.Accept();
    peer.AnswerHello();
    peer.Send(LinkType::kMemAdd, kLinkFlagReply, peer.Next().seq);
    while (peer.Next().type != LinkType::kStart) {
    }
  });
  EXPECT_TRUE(Connect().ok());
  server.join();
}

TEST_F(GuestVmmTest, RefusedMemoryIsReportedInTheServersWords) {
  ConnectWith([](Peer& peer) {
    peer.AnswerHello();
    peer.Refuse(LinkType::kMemAdd, peer.Next().seq, LinkError::kRefused, "not sealed");
  });
  EXPECT_EQ(vmm_.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(vmm_.status().message()), HasSubstr("not sealed"));
}

TEST_F(GuestVmmTest, RefusedUserIsNotTriedAgain) {
  ConnectWith(
      [](Peer& peer) { peer.Refuse(LinkType::kHello, 0, LinkError::kNotPermitted, "not you"); });
  EXPECT_EQ(vmm_.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(vmm_.status().message()), HasSubstr("not you"));
}

TEST_F(GuestVmmTest, SeventeenthUnacknowledgedPostIsRefusedUntilAnAcknowledgement) {
  ConnectUsually();
  const std::array<std::byte, 8> message{};
  for (uint64_t post = 1; post <= 16; ++post) {
    EXPECT_EQ(vmm().PostMessage(0, 1, message), kHypercallSuccess);
    EXPECT_EQ(Parse<LinkPostWire>(peer_->Next()).post_seq.value(), post);
  }
  EXPECT_EQ(vmm().PostMessage(0, 1, message), 0x13u);
  LinkPostAckWire ack{};
  ack.post_seq = 2;
  peer_->Send(LinkType::kPostAck, 0, 1, BytesOf(ack));
  EXPECT_EQ(vmm().PostMessage(0, 4, message), kHypercallSuccess);
  EXPECT_EQ(vmm().PostMessage(0, 4, message), kHypercallSuccess);
  EXPECT_EQ(vmm().PostMessage(0, 4, message), 0x13u);
}

TEST_F(GuestVmmTest, ForeignConnectionAndOverlongPostAreRefusedWithoutAFrame) {
  ConnectUsually();
  const std::array<std::byte, 241> message{};
  EXPECT_EQ(vmm().PostMessage(0, 2, std::span(message).first(8)), 0x12u);
  EXPECT_EQ(vmm().PostMessage(0, 1, message), 5u);
  EXPECT_EQ(vmm().PostMessage(1, 4, std::span(message).first(240)), 0u);
  const auto post = Parse<LinkPostWire>(peer_->Next());
  EXPECT_EQ(post.post_seq.value(), 1u);
  EXPECT_EQ(post.vp.value(), 1u);
  EXPECT_EQ(post.connection.value(), 4u);
  EXPECT_EQ(post.type.value(), 1u);
  EXPECT_EQ(post.size.value(), 240u);
}

TEST_F(GuestVmmTest, SintGetLendsAnInterruptThatWakesAndAnAckThatEomWrites) {
  ConnectUsually();
  LinkSintWire sint{};
  sint.vp = 1;
  sint.sint = 2;
  peer_->Send(LinkType::kSintGet, 0, 77, BytesOf(sint));
  ASSERT_TRUE(vmm().Wait(Soon()).ok());
  const GuestLinkFrame reply = peer_->Next();
  EXPECT_EQ(reply.flags, kLinkFlagReply);
  EXPECT_EQ(reply.seq, 77u);
  ASSERT_EQ(reply.descriptors.size(), 2u);
  EXPECT_EQ(vmm().Wait(Now()).code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_EQ(eventfd_write(reply.descriptors[0].get(), 1), 0);
  EXPECT_TRUE(vmm().Wait(Soon()).ok());
  EXPECT_FALSE(Readable(reply.descriptors[0].get()));
  EXPECT_FALSE(Readable(reply.descriptors[1].get()));
  vmm().EndOfMessage(0);
  EXPECT_FALSE(Readable(reply.descriptors[1].get()));
  vmm().EndOfMessage(1);
  EXPECT_TRUE(Readable(reply.descriptors[1].get()));
}

TEST_F(GuestVmmTest, SintGetOfAnUnknownProcessorIsRefused) {
  ConnectUsually();
  LinkSintWire sint{};
  sint.vp = 2;
  sint.sint = 2;
  peer_->Send(LinkType::kSintGet, 0, 78, BytesOf(sint));
  ASSERT_TRUE(vmm().Wait(Soon()).ok());
  EXPECT_TRUE(peer_->Next().error());
}

TEST_F(GuestVmmTest, SignalGoesToTheConnectionsEventfdAndOtherwiseOverTheSocket) {
  ConnectUsually();
  UniqueFd doorbell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const std::array descriptors = {doorbell.get()};
  LinkConnWire conn{};
  conn.connection = 0x2001;
  peer_->Send(LinkType::kConnSet, 0, 5, BytesOf(conn), descriptors);
  // Not waited for: the signal looks after the socket itself.
  vmm().SignalEvent(0x2001);
  EXPECT_EQ(peer_->Next().flags, kLinkFlagReply);
  EXPECT_TRUE(Readable(doorbell.get()));

  peer_->Send(LinkType::kConnClr, 0, 6, BytesOf(conn));
  ASSERT_TRUE(vmm().Wait(Soon()).ok());
  EXPECT_EQ(peer_->Next().seq, 6u);
  vmm().SignalEvent(0x2001);
  const GuestLinkFrame signal = peer_->Next();
  EXPECT_EQ(signal.type, LinkType::kSignal);
  EXPECT_EQ(Parse<LinkSignalWire>(signal).connection.value(), 0x2001u);
}

TEST_F(GuestVmmTest, ResetTurnsSynicsOffAndForgetsPostsThatWaited) {
  ConnectUsually();
  const std::array<std::byte, 8> message{};
  for (int post = 0; post < 16; ++post) vmm().PostMessage(0, 1, message);
  std::thread server([&] {
    for (int post = 0; post < 16; ++post) peer_->Next();
    EXPECT_EQ(Parse<LinkSynicWire>(peer_->Next()).scontrol.value(), 0u);
    EXPECT_EQ(Parse<LinkSynicWire>(peer_->Next()).simp.value(), 0u);
    const GuestLinkFrame reset = peer_->Next();
    EXPECT_EQ(reset.type, LinkType::kReset);
    peer_->Send(LinkType::kReset, kLinkFlagReply, reset.seq);
  });
  EXPECT_TRUE(vmm().Reset(Soon()).ok());
  server.join();
  EXPECT_EQ(vmm().PostMessage(0, 1, message), kHypercallSuccess);
}

TEST_F(GuestVmmTest, ServerThatGoesAwayMakesWaitsUnavailableAndPostsRefused) {
  ConnectUsually();
  peer_.reset();
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(vmm().PostMessage(0, 1, {}), 0x13u);
  vmm().SignalEvent(0x2001);
}

TEST_F(GuestVmmTest, BytesThatAreNoFrameBreakTheLink) {
  ConnectUsually();
  peer_->Send(static_cast<LinkType>(0x12345678), 0, 1);
  EXPECT_EQ(vmm().Wait(Soon()).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace vmbfs::hyperv
