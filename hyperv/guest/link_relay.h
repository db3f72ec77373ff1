// A man in the middle of a link, for tests: passes whole frames on, and may
// keep or answer what the server sends, as a slow or broken VMM would.

#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_link_socket.h"

namespace vmbfs::hyperv {

// Thread safety: Create and destroy it on one thread; the rule runs on its own.
class LinkRelay {
 public:
  // Sends a frame to one side.
  using SendFrame = std::function<void(LinkType type, uint16_t flags, uint64_t seq,
                                       std::span<const std::byte> payload)>;
  // Sees each frame of the server before the VMM does, and may answer it;
  // false: the VMM does not get it.
  using Rule = std::function<bool(const GuestLinkFrame& frame, const SendFrame& to_server)>;

  // Listens at `path` for one VMM, whose server is at `server_path`.
  LinkRelay(const std::string& path, std::string server_path, Rule rule)
      : path_(path), server_path_(std::move(server_path)), rule_(std::move(rule)) {
    listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
              0);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
    thread_ = std::thread([this] { Run(); });
  }
  ~LinkRelay() {
    stop_ = true;
    thread_.join();
    unlink(path_.c_str());
  }

 private:
  static constexpr std::chrono::milliseconds kLook{10};
  static constexpr std::chrono::seconds kPatience{30};

  static Deadline After(std::chrono::milliseconds time) {
    return std::chrono::steady_clock::now() + time;
  }

  void Run() {
    pollfd waiting{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    while (!PollUntil({&waiting, 1}, After(kLook))) {
      if (stop_) return;
    }
    GuestLinkSocket vmm(
        UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)));
    absl::StatusOr<GuestLinkSocket> server =
        GuestLinkSocket::Connect(server_path_, After(kPatience));
    ASSERT_TRUE(server.ok()) << server.status();
    const SendFrame to_server = [&](LinkType type, uint16_t flags, uint64_t seq,
                                    std::span<const std::byte> payload) {
      (void)server->Send(type, flags, seq, payload, {}, After(kPatience));
    };
    const auto always = [](const GuestLinkFrame&) { return true; };
    const auto ruled = [&](const GuestLinkFrame& frame) { return rule_(frame, to_server); };
    while (!stop_ && Pass(vmm, *server, always) && Pass(*server, vmm, ruled)) {
      std::array<pollfd, 2> fds = {pollfd{.fd = vmm.fd(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = server->fd(), .events = POLLIN, .revents = 0}};
      PollUntil(fds, After(kLook));
    }
  }

  // All frames that are there; false when a side is gone.
  static bool Pass(GuestLinkSocket& from, GuestLinkSocket& to,
                   const std::function<bool(const GuestLinkFrame&)>& passes) {
    for (;;) {
      absl::StatusOr<std::optional<GuestLinkFrame>> frame = from.Receive();
      if (!frame.ok()) return false;
      if (!*frame) return true;
      if (!passes(**frame)) continue;
      std::vector<int> descriptors;
      for (const UniqueFd& fd : (*frame)->descriptors) descriptors.push_back(fd.get());
      const absl::Status sent = to.Send((*frame)->type, (*frame)->flags, (*frame)->seq,
                                        (*frame)->payload, descriptors, After(kPatience));
      if (!sent.ok()) return false;
    }
  }

  const std::string path_;
  const std::string server_path_;
  const Rule rule_;
  UniqueFd listener_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace vmbfs::hyperv
