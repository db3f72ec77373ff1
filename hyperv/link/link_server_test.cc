// The socket file, and who may connect.

#include "hyperv/link/link_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "hyperv/link/fake_device.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

// Listen alone, without a thread.
class LinkListenTest : public ::testing::Test {
 protected:
  absl::Status Listen(LinkServer& server, const std::string& path) {
    LinkOptions options;
    options.socket_path = path;
    return server.Listen(options);
  }
  bool Exists(const std::string& path) {
    struct stat file{};
    return ::lstat(path.c_str(), &file) == 0;
  }

  ScratchFolder folder_;
  boost::asio::io_context context_;
  LinkServer server_{context_.get_executor()};
};

TEST_F(LinkListenTest, PathTooLongIsRefusedWithBothLengths) {
  const std::string path = folder_.Path(std::string(100, 'x'));
  const absl::Status status = Listen(server_, path);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(path.size())));
  EXPECT_THAT(std::string(status.message()), HasSubstr("107"));
  EXPECT_TRUE(absl::IsInvalidArgument(Listen(server_, "")));
}

TEST_F(LinkListenTest, LongestPathWorks) {
  const std::string start = folder_.Path("");
  const std::string path = start + std::string(kSocketPathBytesMax - start.size(), 'x');
  EXPECT_TRUE(Listen(server_, path).ok());
  EXPECT_TRUE(ConnectTo(path));
  server_.Stop();
}

TEST_F(LinkListenTest, SocketHasMode0600AndGoesWithStop) {
  const std::string path = folder_.Path("a");
  ASSERT_TRUE(Listen(server_, path).ok());
  struct stat file{};
  ASSERT_EQ(::lstat(path.c_str(), &file), 0);
  EXPECT_TRUE(S_ISSOCK(file.st_mode));
  EXPECT_EQ(file.st_mode & 07777, 0600u);
  EXPECT_EQ(file.st_uid, ::geteuid());
  EXPECT_TRUE(server_.status().listening);
  server_.Stop();
  EXPECT_FALSE(Exists(path));
  EXPECT_FALSE(server_.status().listening);
}

TEST_F(LinkListenTest, StaleSocketIsReplaced) {
  const std::string path = folder_.Path("a");
  {
    const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ASSERT_TRUE(Exists(path));
  EXPECT_TRUE(Listen(server_, path).ok());
  EXPECT_TRUE(ConnectTo(path));
  server_.Stop();
}

TEST_F(LinkListenTest, LiveSocketIsLeftAlone) {
  const std::string path = folder_.Path("a");
  ASSERT_TRUE(Listen(server_, path).ok());
  LinkServer second(context_.get_executor());
  const absl::Status status = Listen(second, path);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("another process listens"));
  second.Stop();
  EXPECT_TRUE(ConnectTo(path));
  server_.Stop();
}

TEST_F(LinkListenTest, FileThatIsNoSocketIsLeftAlone) {
  const std::string path = folder_.Path("a");
  std::ofstream(path) << "precious";
  EXPECT_TRUE(absl::IsFailedPrecondition(Listen(server_, path)));
  EXPECT_TRUE(Exists(path));
}

TEST_F(LinkListenTest, StopLeavesASuccessorsSocketAlone) {
  const std::string path = folder_.Path("a");
  ASSERT_TRUE(Listen(server_, path).ok());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  LinkServer second(context_.get_executor());
  ASSERT_TRUE(Listen(second, path).ok());
  server_.Stop();
  EXPECT_TRUE(ConnectTo(path));
  second.Stop();
}

TEST_F(LinkListenTest, MissingFolderIsAnError) {
  EXPECT_TRUE(absl::IsInternal(Listen(server_, folder_.Path("none/a"))));
}

TEST(LinkServer, SecondConnectionIsRefusedWithTheReasonWhileTheFirstLives) {
  LinkHarness harness;
  TestVmm first(harness.path());
  ASSERT_TRUE(first.SetUp());
  const UniqueFd second = ConnectTo(harness.path());
  const auto refusal = ReceiveFrame(second);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->type, LinkType::kHello);
  EXPECT_TRUE(refusal->error());
  EXPECT_EQ(refusal->error_code(), 4u);
  EXPECT_THAT(refusal->error_text(), HasSubstr("another connection"));
  EXPECT_FALSE(ReceiveFrame(second).has_value());  // closed
  const LinkStatus status = harness.status();
  EXPECT_TRUE(status.connected);
  EXPECT_EQ(status.connections, 1u);
  EXPECT_EQ(status.connections_refused, 1u);
}

TEST(LinkServer, NextConnectionIsTakenAfterTheFirstEnded) {
  LinkHarness harness;
  for (int i = 0; i < 20; ++i) {
    TestVmm vmm(harness.path());  // at once: its predecessor's end may be unread yet
    ASSERT_TRUE(vmm.SetUp()) << i;
  }
  EXPECT_EQ(harness.status().connections, 20u);
  EXPECT_TRUE(harness.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
}

// Whatever descriptors came with frames, wanted or not.
TEST(LinkServer, EndedConnectionsLeaveNoDescriptorBehind) {
  LinkHarness harness;
  const auto device = std::make_shared<FakeDevice>();
  ASSERT_TRUE(harness.Do([&](LinkServer& server) { return server.Add(device); }).ok());
  const auto descriptors = [] {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++count;
    }
    return count;
  };
  const size_t before = descriptors();
  {
    TestVmm vmm(harness.path());
    ASSERT_TRUE(vmm.SetUp());
    ASSERT_TRUE(vmm.ConnectBus());
    ASSERT_TRUE(vmm.CreateRingGpadl());
    ASSERT_EQ(vmm.OpenChannel(), 0u);
    const int fd = vmm.ram_fd();
    const LinkMemAddWire overlapping{};
    vmm.Send(LinkType::kMemAdd, WireBytes(overlapping), 0, {fd});    // refused
    vmm.Send(LinkType::kState, std::vector<std::byte>(8), 0, {fd});  // ignored
    vmm.Send(LinkType::kMemAdd, WireBytes(overlapping), 0, {fd, fd, fd, fd});
    EXPECT_FALSE(vmm.Ask(LinkType::kPause, {}).has_value());
  }
  EXPECT_TRUE(harness.WaitForStatus([&](const LinkStatus&) { return descriptors() == before; }));
}

TEST(LinkServer, StatusTellsOfTheConnection) {
  LinkHarness harness;
  EXPECT_FALSE(harness.status().connected);
  UniqueFd socket = ConnectTo(harness.path());
  SendBytes(socket, FrameBytes(0x564C0001, 0, 0, 1, HelloPayload(1, "a\nb")));
  ASSERT_TRUE(ReceiveFrame(socket).has_value());
  const LinkStatus status = harness.status();
  EXPECT_TRUE(status.connected);
  EXPECT_FALSE(status.started);
  EXPECT_EQ(status.peer_label, "a\\nb");
  EXPECT_EQ(status.peer_pid, ::getpid());
  ASSERT_TRUE(status.bus.has_value());
  EXPECT_EQ(status.bus->state, "disconnected");
}

TEST(LinkServer, SameDeviceTwiceIsRefused) {
  LinkHarness harness;
  const auto device = std::make_shared<FakeDevice>();
  const auto twin = std::make_shared<FakeDevice>();
  const auto add = [&](const std::shared_ptr<FakeDevice>& added) {
    return harness.Do([&](LinkServer& server) { return server.Add(added); });
  };
  EXPECT_TRUE(add(device).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(add(twin)));
  harness.Do([&](LinkServer& server) {
    server.Remove(*device);
    return 0;
  });
  EXPECT_EQ(device.use_count(), 1);  // the link let go of it
  EXPECT_TRUE(add(twin).ok());
}

}  // namespace
}  // namespace vmbfs::hyperv
