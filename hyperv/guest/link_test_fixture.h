// A link server with echo devices on its own thread, and guests for it.

#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guid/guid.h"
#include "hyperv/link/link_server.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs::hyperv {

inline constexpr Guid kEchoInterface = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
inline constexpr Guid kFirstInstance = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
inline constexpr Guid kSecondInstance = Guid::FromLiteral("c63c9bdf-5fa5-4208-b03f-6b458b365592");

// Sends every message back, in order.
//
// Thread safety: the server's strand; the counts may be read anywhere.
class EchoDevice final : public ChannelDevice {
 public:
  explicit EchoDevice(const Guid& instance) : offer_(MessagePipeOffer(kEchoInterface, instance)) {}

  const ChannelOffer& offer() const override { return offer_; }

  absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()>) override {
    if (refuse_opens) return absl::UnavailableError("the device refuses");
    pipe_ = std::make_unique<MessagePipe>(std::move(channel));
    ++opens;
    return absl::OkStatus();
  }

  absl::StatusOr<ChannelTurn> Run() override {
    constexpr uint32_t kMessagesPerTurn = 16;
    ChannelTurn turn;
    for (; turn.requests < kMessagesPerTurn; ++turn.requests) {
      const absl::StatusOr<bool> echoed = EchoOne();
      if (!echoed.ok()) return echoed.status();
      if (!*echoed) return turn;
    }
    turn.next = ChannelTurn::Next::kMore;
    return turn;
  }

  absl::StatusOr<Armed> Arm() override {
    const absl::StatusOr<bool> arrived =
        waiting_ ? pipe_->ArmWrite(waiting_->size()) : pipe_->ArmRead();
    if (!arrived.ok()) return arrived.status();
    return *arrived ? Armed::kArrived : Armed::kSignal;
  }

  void Close() override {
    waiting_.reset();
    pipe_.reset();
    ++closes;
  }

  std::atomic<bool> refuse_opens = false;
  std::atomic<int> opens = 0;
  std::atomic<int> closes = 0;

 private:
  // false: there is nothing to do.
  absl::StatusOr<bool> EchoOne() {
    if (!waiting_) {
      absl::StatusOr<std::optional<std::span<std::byte>>> message = pipe_->Read(buffer_);
      if (!message.ok()) return message.status();
      if (!*message) return false;
      waiting_ = **message;
    }
    absl::StatusOr<bool> written = pipe_->Write(*waiting_);
    if (!written.ok() || !*written) return written;
    pipe_->DisarmWrite();
    pipe_->Consume();
    waiting_.reset();
    return true;
  }

  const ChannelOffer offer_;
  std::unique_ptr<MessagePipe> pipe_;
  std::array<std::byte, 16384> buffer_{};
  std::optional<std::span<std::byte>> waiting_;  // read, and no room to answer
};

// A guest's own bytes: sizes and seeds give different ones.
inline std::vector<std::byte> Pattern(size_t bytes, size_t seed) {
  std::vector<std::byte> pattern(bytes);
  for (size_t index = 0; index < bytes; ++index) {
    pattern[index] = static_cast<std::byte>(index * 7 + (index >> 8) + seed * 31);
  }
  return pattern;
}

class LinkServerFixture : public testing::Test {
 protected:
  explicit LinkServerFixture(bool monitored = false)
      : folder_(NewFolder()),
        path_(folder_ + "/link.sock"),
        work_(boost::asio::make_work_guard(context_)),
        thread_([this] { context_.run(); }) {
    OnStrand([this, monitored] {
      server_ = std::make_unique<LinkServer>(context_.get_executor());
      LinkOptions options;
      options.socket_path = path_;
      options.monitored = monitored;
      ASSERT_TRUE(server_->Listen(options).ok());
      ASSERT_TRUE(server_->Add(first_).ok());
      server_->Start();
    });
  }

  ~LinkServerFixture() override {
    OnStrand([this] {
      server_->Stop();
      server_.reset();
    });
    work_.reset();
    context_.stop();
    thread_.join();
    rmdir(folder_.c_str());
  }

  // Runs `call` on the server's thread and waits for its end.
  void OnStrand(const std::function<void()>& call) {
    std::promise<void> done;
    boost::asio::post(context_, [&] {
      call();
      done.set_value();
    });
    done.get_future().wait();
  }

  GuestOptions OptionsOf(GuestLink link, GuestProfile profile) const {
    GuestOptions options;
    options.socket_path = path_;
    options.link = link;
    options.profile = profile;
    options.timeout = std::chrono::seconds(60);
    return options;
  }

  static std::unique_ptr<Guest> Started(const GuestOptions& options) {
    absl::StatusOr<std::unique_ptr<Guest>> guest = Guest::Start(options);
    EXPECT_TRUE(guest.ok()) << guest.status();
    return guest.ok() ? *std::move(guest) : nullptr;
  }

  static std::unique_ptr<Guest> Connected(const GuestOptions& options) {
    std::unique_ptr<Guest> guest = Started(options);
    if (guest) {
      EXPECT_TRUE(guest->Connect().ok());
    }
    return guest;
  }

  static std::unique_ptr<GuestChannel> Opened(Guest& guest, const Guid& instance = kFirstInstance) {
    absl::StatusOr<GuestOffer> offer = guest.WaitForOffer(kEchoInterface, instance);
    EXPECT_TRUE(offer.ok()) << offer.status();
    if (!offer.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<GuestChannel>> channel = guest.Open(*offer);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *std::move(channel) : nullptr;
  }

  static void ExpectEcho(GuestChannel& channel, size_t bytes, size_t seed = 0) {
    const std::vector<std::byte> message = Pattern(bytes, seed);
    std::vector<std::byte> buffer(16384);
    absl::StatusOr<std::span<std::byte>> answer = channel.Exchange(message, buffer);
    ASSERT_TRUE(answer.ok()) << bytes << " bytes: " << answer.status();
    EXPECT_EQ(std::vector<std::byte>(answer->begin(), answer->end()), message);
  }

  // Short, since a socket's path is.
  static std::string NewFolder() {
    std::string folder = "/tmp/guest-test-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    return folder;
  }

  const std::string folder_;
  const std::string path_;
  const std::shared_ptr<EchoDevice> first_ = std::make_shared<EchoDevice>(kFirstInstance);
  const std::shared_ptr<EchoDevice> second_ = std::make_shared<EchoDevice>(kSecondInstance);
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
  std::unique_ptr<LinkServer> server_;
};

// Tests run as each guest over each form of the link.
struct LinkTestParameters {
  GuestProfile profile{};
  GuestLink link{};
};

inline std::vector<LinkTestParameters> AllLinkTestParameters() {
  std::vector<LinkTestParameters> all;
  for (GuestLink link : kGuestLinks) {
    for (GuestProfile profile : {GuestProfile::kFirmware, GuestProfile::kLinux}) {
      all.push_back({.profile = profile, .link = link});
    }
  }
  return all;
}

inline std::string LinkTestName(const testing::TestParamInfo<LinkTestParameters>& test) {
  return absl::StrCat(std::string(GuestLinkName(test.param.link)),
                      test.param.profile == GuestProfile::kFirmware ? "Firmware" : "Linux");
}

class LinkTest : public LinkServerFixture, public testing::WithParamInterface<LinkTestParameters> {
 protected:
  static GuestProfile Profile() { return GetParam().profile; }
  GuestOptions Options() const { return OptionsOf(GetParam().link, Profile()); }
};

}  // namespace vmbfs::hyperv
