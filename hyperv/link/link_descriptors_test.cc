// Descriptors that come over the link: which control messages are taken, and
// what becomes of what nobody wants.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "hyperv/file_descriptor/fd_closer.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kHello = 0x564C0001;
constexpr uint32_t kMemAdd = 0x564C0002;
constexpr uint32_t kPause = 0x564C0005;

// Writes down what it closes.
class NotingCloser final : public FdCloser {
 public:
  void Close(int fd) override {
    const std::lock_guard lock(mutex_);
    ++closed_;
    ::close(fd);
  }
  bool HasRoom() const override {
    const std::lock_guard lock(mutex_);
    return has_room_;
  }
  size_t closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  void SetRoom(bool has_room) {
    const std::lock_guard lock(mutex_);
    has_room_ = has_room;
  }

 private:
  mutable std::mutex mutex_;
  size_t closed_ = 0;
  bool has_room_ = true;
};

std::vector<std::byte> Region(uint64_t bytes) {
  LinkMemAddWire wire{};
  wire.id = 1;
  wire.bytes = bytes;
  const auto span = WireBytes(wire);
  return {span.begin(), span.end()};
}

void ExpectEnd(LinkHarness& harness, const UniqueFd& socket, const std::string& text) {
  const auto error = ReceiveFrame(socket);
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->error());
  EXPECT_THAT(error->error_text(), HasSubstr(text));
  EXPECT_FALSE(ReceiveFrame(socket).has_value());
  EXPECT_TRUE(harness.WaitForStatus([](const LinkStatus& status) { return status.peer_pid == 0; }));
  EXPECT_THAT(harness.status().last_error, HasSubstr(text));
}

UniqueFd Greeted(LinkHarness& harness) {
  UniqueFd socket = ConnectTo(harness.path());
  SendBytes(socket, FrameBytes(kHello, 0, 0, 1, HelloPayload(1)));
  const auto reply = ReceiveFrame(socket);
  EXPECT_TRUE(reply && !reply->error());
  return socket;
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

class LinkDescriptorsTest : public ::testing::Test {
 protected:
  LinkDescriptorsTest() {
    LinkOptions options;
    options.connection.closer = closer_;
    harness_ = std::make_unique<LinkHarness>(options);
  }
  // Whether the closer has got so many, and nothing but ours is open.
  bool WaitForClosed(size_t count, size_t open_before) {
    return harness_->WaitForStatus([&](const LinkStatus&) {
      return closer_->closed() == count && OpenDescriptors() == open_before;
    });
  }

  const std::shared_ptr<NotingCloser> closer_ = std::make_shared<NotingCloser>();
  std::unique_ptr<LinkHarness> harness_;
  const UniqueFd memory_ = TestMemory(4096, SealShrink());
  const UniqueFd unsealed_ = TestMemory(4096, 0);
};

// Refused, surplus, unannounced, with a frame that is not supported, with half a
// frame, with a reply that has none.
TEST_F(LinkDescriptorsTest, EveryOneThatIsNotKeptGoesToTheCloser) {
  const int fd = memory_.get();
  const std::vector<std::byte> eight(8);
  const std::vector<std::byte> mem_add = FrameBytes(kMemAdd, 0, 1, 1, Region(4096));
  struct Case {
    const char* name;
    std::vector<std::byte> bytes;
    std::vector<int> descriptors;
    bool ends;
  };
  const std::vector<Case> cases = {
      {"refused", mem_add, {unsealed_.get()}, false},
      {"flags",
       FrameBytes(kMemAdd, 0, 1, 1,
                  [] {
                    std::vector<std::byte> region = Region(4096);
                    region[4] = std::byte{1};
                    return region;
                  }()),
       {fd},
       false},
      {"reserved", FrameBytes(0x564C000A, 2, 1, 1, eight), {fd}, false},
      {"surplus", mem_add, {fd, fd}, true},
      {"unannounced", FrameBytes(kPause, 0, 0, 1, {}), {fd, fd, fd, fd}, true},
      {"half", {mem_add.begin(), mem_add.begin() + 30}, {fd}, true},
      {"unknown type", FrameBytes(0x564C0099, 0, 1, 1, {}), {fd}, true},
      {"malformed", FrameBytes(kMemAdd, 0, 1, 1, eight), {fd}, true},
      {"reply to nobody", FrameBytes(0x564C0030, 1, 2, 9, {}), {fd, fd}, true},
  };
  for (const Case& sent : cases) {
    SCOPED_TRACE(sent.name);
    const size_t closed_before = closer_->closed();
    ASSERT_TRUE(
        harness_->WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
    const size_t open_before = OpenDescriptors();
    {
      const UniqueFd socket = Greeted(*harness_);
      ASSERT_TRUE(SendBytes(socket, sent.bytes, sent.descriptors));
      if (!sent.ends) {
        const auto reply = ReceiveFrame(socket);
        ASSERT_TRUE(reply && reply->error());
        // At once, not at the connection's end.
        EXPECT_TRUE(harness_->WaitForStatus([&](const LinkStatus&) {
          return closer_->closed() == closed_before + sent.descriptors.size();
        }));
        EXPECT_TRUE(harness_->status().connected);
      }
    }
    EXPECT_TRUE(WaitForClosed(closed_before + sent.descriptors.size(), open_before));
  }
}

TEST_F(LinkDescriptorsTest, KeptOneGoesToTheCloserWithItsRegion) {
  const UniqueFd socket = Greeted(*harness_);
  SendBytes(socket, FrameBytes(kMemAdd, 2, 1, 1, Region(4096)), {memory_.get()});
  ASSERT_FALSE(ReceiveFrame(socket)->error());
  EXPECT_EQ(closer_->closed(), 0u);
  LinkMemDelWire gone{};
  gone.id = 1;
  SendBytes(socket, FrameBytes(0x564C0003, 0, 0, 2, WireBytes(gone)));
  ASSERT_FALSE(ReceiveFrame(socket)->error());
  EXPECT_EQ(closer_->closed(), 1u);
}

TEST_F(LinkDescriptorsTest, NoMoreAreTakenWhileTheCloserHasNoRoom) {
  const UniqueFd first = Greeted(*harness_);
  closer_->SetRoom(false);
  SendBytes(first, FrameBytes(kPause, 0, 0, 1, {}));
  EXPECT_FALSE(ReceiveFrame(first)->error());  // frames without go on
  SendBytes(first, FrameBytes(kMemAdd, 2, 1, 2, Region(4096)), {memory_.get()});
  EXPECT_FALSE(ReceiveFrame(first).has_value());
  EXPECT_THAT(harness_->status().last_error, HasSubstr("wait to be closed"));
  EXPECT_EQ(closer_->closed(), 1u);
  const UniqueFd second = ConnectTo(harness_->path());
  EXPECT_EQ(ReceiveFrame(second)->error_code(), 4u);  // busy
  closer_->SetRoom(true);
  Greeted(*harness_);
}

// Control messages as the kernel lets them through.

using ControlWriter = std::function<size_t(std::span<std::byte>)>;

// Sends `bytes` with what `write` puts into the control buffer.
bool SendControl(const UniqueFd& socket, std::span<const std::byte> bytes,
                 const ControlWriter& write) {
  alignas(cmsghdr) std::array<std::byte, 512> control{};
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = write(control);
  return ::sendmsg(socket.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

size_t PutControl(std::span<std::byte> at, int type, std::span<const std::byte> data) {
  cmsghdr header{};
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = type;
  header.cmsg_len = CMSG_LEN(data.size());
  std::memcpy(at.data(), &header, sizeof(header));
  std::copy(data.begin(), data.end(), at.begin() + CMSG_LEN(0));
  return CMSG_SPACE(data.size());
}

size_t PutFds(std::span<std::byte> at, const std::vector<int>& fds) {
  return PutControl(at, SCM_RIGHTS, std::as_bytes(std::span(fds)));
}

TEST_F(LinkDescriptorsTest, TwoControlMessagesCountTogether) {
  const size_t open_before = OpenDescriptors();
  {
    const UniqueFd socket = Greeted(*harness_);
    const int fd = memory_.get();
    ASSERT_TRUE(SendControl(socket, FrameBytes(kMemAdd, 0, 1, 1, Region(4096)),
                            [fd](std::span<std::byte> control) {
                              const size_t first = PutFds(control, {fd});
                              return first + PutFds(control.subspan(first), {fd});
                            }));
    ExpectEnd(*harness_, socket, "announces 1 descriptors; 2 came");
  }
  EXPECT_TRUE(WaitForClosed(2, open_before));
}

TEST_F(LinkDescriptorsTest, CredentialsAndEmptyRightsBesideADescriptorChangeNothing) {
  const UniqueFd socket = Greeted(*harness_);
  const int fd = memory_.get();
  const ucred self{.pid = ::getpid(), .uid = ::getuid(), .gid = ::getgid()};
  ASSERT_TRUE(SendControl(socket, FrameBytes(kMemAdd, 2, 1, 1, Region(4096)),
                          [&](std::span<std::byte> control) {
                            size_t bytes = PutControl(control, SCM_CREDENTIALS, WireBytes(self));
                            bytes += PutFds(control.subspan(bytes), {});
                            return bytes + PutFds(control.subspan(bytes), {fd});
                          }));
  const auto reply = ReceiveFrame(socket);
  ASSERT_TRUE(reply.has_value());
  EXPECT_FALSE(reply->error()) << reply->error_text();
}

// The kernel cuts the message where the buffer ends, and where this process may
// have no more descriptors.
TEST_F(LinkDescriptorsTest, TruncatedControlMessagesEndTheConnectionAndLeakNothing) {
  const size_t open_before = OpenDescriptors();
  for (const size_t count : {5u, 6u, 64u}) {
    SCOPED_TRACE(count);
    const size_t closed_before = closer_->closed();
    const UniqueFd socket = Greeted(*harness_);
    const std::vector<int> fds(count, memory_.get());
    ASSERT_TRUE(SendControl(socket, FrameBytes(kMemAdd, 0, 4, 1, Region(4096)),
                            [&](std::span<std::byte> control) { return PutFds(control, fds); }));
    ExpectEnd(*harness_, socket, "cut short");
    EXPECT_EQ(closer_->closed(), closed_before + 4);
  }
  EXPECT_EQ(OpenDescriptors(), open_before);
}

TEST_F(LinkDescriptorsTest, DescriptorsForWhichThisProcessHasNoRoomEndTheConnection) {
  const UniqueFd socket = Greeted(*harness_);
  const int fd = memory_.get();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  const UniqueFd lowest_free(::dup(fd));
  none.rlim_cur = static_cast<rlim_t>(lowest_free.get()) + 1;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const bool sent = SendBytes(socket, FrameBytes(kMemAdd, 0, 1, 1, Region(4096)), {fd});
  const auto error = ReceiveFrame(socket);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_TRUE(sent);
  ASSERT_TRUE(error.has_value());
  EXPECT_THAT(error->error_text(), HasSubstr("cut short"));
  EXPECT_EQ(closer_->closed(), 0u);
  Greeted(*harness_);
}

}  // namespace
}  // namespace vmbfs::hyperv
