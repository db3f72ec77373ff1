// A server over a fake host on a socket of its own, for tests.

#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "grpc/fake_host/fake_host.h"
#include "grpc/server/server.h"

namespace vmbfs::rpc {

// Ownership: the folder, which goes with it.
class TestServer {
 public:
  explicit TestServer(ServerOptions options = {}, uint64_t upload_bytes_max = uint64_t{64} << 20)
      : host_(upload_bytes_max) {
    // Not the test's own folder: a socket's path has at most 107 bytes.
    std::string folder = std::filesystem::temp_directory_path() / "vmbfs-rpc-XXXXXX";
    folder_ = ::mkdtemp(folder.data());
    options.socket_path = socket_path();
    auto server = Server::Start(host_, options);
    EXPECT_TRUE(server.ok()) << server.status();
    if (server.ok()) server_ = *std::move(server);
  }
  ~TestServer() {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  FakeHost& host() { return host_; }
  std::filesystem::path folder() const { return folder_; }
  std::filesystem::path socket_path() const { return folder_ / "admin.sock"; }
  std::string address() const { return "unix:" + socket_path().native(); }
  void Stop() { server_.reset(); }

 private:
  FakeHost host_;
  std::filesystem::path folder_;
  std::unique_ptr<Server> server_;
};

// Whether `condition` came true within 10 s.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

}  // namespace vmbfs::rpc
