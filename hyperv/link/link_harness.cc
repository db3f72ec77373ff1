#include "hyperv/link/link_harness.h"

#include <stdlib.h>

#include <chrono>
#include <filesystem>

#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

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

LinkHarness::LinkHarness(LinkOptions options, const SpinOptions& spin) : spinner_(spin) {
  options.socket_path = path_;
  options.on_fault = [this](const ChannelDevice&, const absl::Status& reason) {
    faults_.emplace_back(reason.message());
  };
  options.on_open_refused = [this](const ChannelDevice&, const absl::Status& reason) {
    refusals_.emplace_back(reason.message());
  };
  if (!server_->Listen(options).ok()) ::abort();
  server_->Start();
  thread_ = std::thread([this] { spinner_.Run(context_); });
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

}  // namespace vmbfs::hyperv
