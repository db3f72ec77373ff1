// A LinkServer on a thread of its own, and a small scripted VMM with its guest,
// for tests of the link.

#pragma once

#include <sys/eventfd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/link_server.h"

namespace vmbfs::hyperv {

// Every wait of a test ends after so long, far beyond what it takes.
inline constexpr int kPatienceMs = 60'000;

// A folder of its own, removed in the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_;
};

// A listening LinkServer whose strand is a thread.
class LinkHarness {
 public:
  // `options` without a path, on_fault and on_open_refused, which are its own.
  explicit LinkHarness(LinkOptions options = {});
  ~LinkHarness();

  // Runs `action` on the strand and returns its result.
  template <typename Action>
  auto Do(Action action) {
    std::packaged_task<decltype(action(*server_))()> task([&] { return action(*server_); });
    auto result = task.get_future();
    boost::asio::post(context_, [&] { task(); });
    return result.get();
  }
  LinkStatus status() {
    return Do([](LinkServer& server) { return server.status(); });
  }
  // Asks again and again; false when it never became true.
  bool WaitForStatus(const std::function<bool(const LinkStatus&)>& predicate);

  // Reasons that on_fault was given.
  std::vector<std::string> faults() {
    return Do([this](LinkServer&) { return faults_; });
  }

  // The same of on_open_refused.
  std::vector<std::string> refusals() {
    return Do([this](LinkServer&) { return refusals_; });
  }

  const std::string& path() const { return path_; }
  // Of the thread, for a second server beside the first.
  boost::asio::any_io_executor strand() { return context_.get_executor(); }

 private:
  ScratchFolder folder_;
  std::string path_ = folder_.Path("vm.sock");
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  std::unique_ptr<LinkServer> server_ = std::make_unique<LinkServer>(context_.get_executor());
  std::vector<std::string> faults_;    // the strand's
  std::vector<std::string> refusals_;  // the strand's
  std::thread thread_;
};

// A memfd of `bytes`, sealed with `seals`.
UniqueFd TestMemory(size_t bytes, int seals);
int SealShrink();

struct TestFrame {
  LinkType type{};
  uint16_t flags = 0;
  uint64_t seq = 0;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;

  bool reply() const { return (flags & kLinkFlagReply) != 0; }
  bool error() const { return (flags & kLinkFlagError) != 0; }
  uint32_t error_code() const;
  std::string error_text() const;
};

template <typename Wire>
std::span<const std::byte> WireBytes(const Wire& wire) {
  return std::as_bytes(std::span<const Wire, 1>(&wire, 1));
}

// The bytes of a frame, with a header as given.
std::vector<std::byte> FrameBytes(uint32_t type, uint16_t flags, uint16_t nfds, uint64_t seq,
                                  std::span<const std::byte> payload);
std::vector<std::byte> HelloPayload(uint32_t vp_count, const std::string& label = "test");
// A VMBus channel message of 32-bit words behind the message type.
std::vector<std::byte> VmbusMessage(uint32_t type, std::initializer_list<uint32_t> words);
uint32_t WordAt(std::span<const std::byte> bytes, size_t offset);

// Bare ends of the socket.
UniqueFd ConnectTo(const std::string& path);
bool SendBytes(const UniqueFd& socket, std::span<const std::byte> bytes,
               const std::vector<int>& descriptors = {});
// The next frame, or nothing when the connection ended.
std::optional<TestFrame> ReceiveFrame(const UniqueFd& socket);

// A VMM with a guest of one region of RAM at address 0, and another of
// kRingPages pages at kRingGpa. VP n has its SIMP in page 2n+1, its SIEFP in
// page 2n+2. It answers what the server asks while it waits for something.
class TestVmm {
 public:
  static constexpr size_t kPages = 64;
  static constexpr uint64_t kRingGpa = 0x100000;
  static constexpr size_t kRingPages = 10;
  static constexpr uint32_t kRamRegion = 1;
  static constexpr uint32_t kRingRegion = 2;

  explicit TestVmm(const std::string& path, uint32_t vp_count = 1, int ram_seals = SealShrink(),
                   int ring_seals = SealShrink());
  ~TestVmm();
  TestVmm(const TestVmm&) = delete;
  TestVmm& operator=(const TestVmm&) = delete;

  // HELLO, memory, SYNIC of all VPs, START. false: it was refused.
  bool SetUp();

  // Sends a frame; its seq is returned.
  uint64_t Send(LinkType type, std::span<const std::byte> payload, uint16_t flags = 0,
                const std::vector<int>& descriptors = {});
  // Sends with NEED_ACK and waits for the reply; nothing: the connection ended.
  std::optional<TestFrame> Ask(LinkType type, std::span<const std::byte> payload,
                               const std::vector<int>& descriptors = {});
  void SetSynic(uint32_t vp, bool enabled);

  // The guest's side.
  uint64_t Post(std::span<const std::byte> message, uint32_t connection = 1);
  // Takes the next message of a VP as a guest does; empty when none came.
  std::vector<std::byte> TakeMessage(uint32_t vp = 0);
  bool SlotIsFull(uint32_t vp = 0) const;
  // Whether the event flag comes; it is cleared.
  bool WaitForEvent(uint32_t vp, uint32_t flag);
  bool WaitForAck(uint64_t post_seq);
  // Waits until the server has set (or cleared) a doorbell for a connection.
  bool WaitForDoorbell(uint32_t connection, bool present);
  void RingDoorbell(uint32_t connection);
  // CONN_SET for a connection, SINT_GET for a processor: never answered.
  void LeaveUnanswered(LinkType type, uint32_t subject) { unanswered_.emplace(type, subject); }

  uint64_t acknowledged() const { return acknowledged_; }
  bool HasDoorbell(uint32_t connection) const { return doorbells_.contains(connection); }
  std::byte* page(uint64_t number) const { return ram_ + number * 4096; }
  int ram_fd() const { return ram_fd_.get(); }
  int ring_fd() const { return ring_fd_.get(); }
  const UniqueFd& socket() const { return socket_; }

  // Guest code of many tests: negotiate, list offers, GPADL 1 over the ring
  // pages of channel 1, open. The ids are what the server gave.
  bool ConnectBus(uint32_t version = 0x00040000, uint32_t connection = 1);
  bool CreateRingGpadl();
  uint32_t OpenChannel(uint32_t target_vp = 0);  // the status in OpenResult
  uint32_t channel_connection() const { return channel_connection_; }

 private:
  struct Sint {
    UniqueFd irq;
    UniqueFd ack;
  };
  bool WaitUntil(const std::function<bool()>& condition);
  bool ServeOne(int timeout_ms);
  void Answer(TestFrame frame);
  Sint& SintOf(uint32_t vp);

  uint32_t vp_count_;
  UniqueFd socket_;
  UniqueFd ram_fd_;
  UniqueFd ring_fd_;
  std::byte* ram_ = nullptr;
  uint64_t next_seq_ = 1;
  uint64_t next_post_ = 1;
  uint64_t acknowledged_ = 0;
  bool ended_ = false;
  uint32_t channel_connection_ = 0;
  std::map<uint64_t, TestFrame> replies_;
  std::map<uint32_t, UniqueFd> doorbells_;
  std::set<std::pair<LinkType, uint32_t>> unanswered_;
  std::map<uint32_t, Sint> sints_;  // by VP; SINT 2
};

}  // namespace vmbfs::hyperv
