// The place in the file system that the server listens at.

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpc/client/client.h"
#include "grpc/server/server.h"
#include "grpc/server/test_server.h"

namespace vmbfs::rpc {
namespace {

class SocketTest : public testing::Test {
 protected:
  // A socket at `path` that listens, or not.
  int Bind(const std::filesystem::path& path, bool listen) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.native().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    if (listen) {
      EXPECT_EQ(::listen(fd, 1), 0);
    }
    return fd;
  }

  absl::StatusOr<std::unique_ptr<Server>> StartAt(const std::filesystem::path& path) {
    ServerOptions options;
    options.socket_path = path;
    return Server::Start(server_.host(), options);
  }

  TestServer server_;
};

TEST_F(SocketTest, IsItsOwnersAlone) {
  struct stat found{};
  ASSERT_EQ(::stat(server_.socket_path().c_str(), &found), 0);
  EXPECT_TRUE(S_ISSOCK(found.st_mode));
  EXPECT_EQ(found.st_mode & 0777, 0600u);
}

TEST_F(SocketTest, LiveOneIsNotTakenOver) {
  const auto second = StartAt(server_.socket_path());
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
  const auto client = *Client::Make(server_.address(), std::chrono::seconds(20));
  EXPECT_TRUE(client->ListVms({}).ok());
  const int foreign = Bind(server_.folder() / "foreign.sock", /*listen=*/true);
  EXPECT_TRUE(absl::IsFailedPrecondition(StartAt(server_.folder() / "foreign.sock").status()));
  ::close(foreign);
}

TEST_F(SocketTest, StaleOneIsReplaced) {
  const std::filesystem::path path = server_.folder() / "stale.sock";
  ::close(Bind(path, /*listen=*/false));
  const auto started = StartAt(path);
  EXPECT_TRUE(started.ok()) << started.status();
}

TEST_F(SocketTest, OtherFilesAndImpossiblePathsAreRefused) {
  const std::filesystem::path file = server_.folder() / "file";
  std::ofstream(file) << "precious";
  EXPECT_TRUE(absl::IsFailedPrecondition(StartAt(file).status()));
  EXPECT_EQ(std::filesystem::file_size(file), 8u);
  EXPECT_TRUE(absl::IsInvalidArgument(StartAt(server_.folder() / std::string(100, 'x')).status()));
  EXPECT_TRUE(absl::IsInternal(StartAt(server_.folder() / "no" / "admin.sock").status()));
}

}  // namespace
}  // namespace vmbfs::rpc
