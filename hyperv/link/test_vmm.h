// A small scripted VMM for tests of the link: the socket and the guest's memory,
// and the SynIC level with a guest behind it. test_channel_vmm.h has the other
// level.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

// A VMM whose guest has one region of RAM at address 0, and another of
// kRingPages pages at kRingGpa. It answers what the server asks while it waits
// for something.
class TestVmmBase {
 public:
  static constexpr size_t kPages = 64;
  static constexpr uint64_t kRingGpa = 0x100000;
  static constexpr size_t kRingPages = 10;
  static constexpr uint32_t kRamRegion = 1;
  static constexpr uint32_t kRingRegion = 2;

  explicit TestVmmBase(const std::string& path, int ram_seals = SealShrink(),
                       int ring_seals = SealShrink());
  virtual ~TestVmmBase();
  TestVmmBase(const TestVmmBase&) = delete;
  TestVmmBase& operator=(const TestVmmBase&) = delete;

  // Sends a frame; its seq is returned.
  uint64_t Send(LinkType type, std::span<const std::byte> payload, uint16_t flags = 0,
                const std::vector<int>& descriptors = {});
  // The reply to a frame that was sent; nothing: the connection ended.
  std::optional<TestFrame> WaitForReply(uint64_t seq);
  // Sends with NEED_ACK and waits for the reply.
  std::optional<TestFrame> Ask(LinkType type, std::span<const std::byte> payload,
                               const std::vector<int>& descriptors = {});
  // Serves the server until then; false: the connection ended, or never.
  bool WaitUntil(const std::function<bool()>& condition);

  std::byte* page(uint64_t number) const { return ram_ + number * 4096; }
  int ram_fd() const { return ram_fd_.get(); }
  int ring_fd() const { return ring_fd_.get(); }
  const UniqueFd& socket() const { return socket_; }

 protected:
  // HELLO and both regions. false: it was refused.
  bool Greet(std::span<const std::byte> hello);
  // A request of the server's. false: the VMM has no answer, and hangs up.
  virtual bool Answer(TestFrame& frame) = 0;
  // Called in each round of a wait.
  virtual void Look() {}
  void Reply(const TestFrame& request, std::span<const std::byte> payload,
             const std::vector<int>& descriptors = {});

 private:
  void ServeOne(int timeout_ms);

  UniqueFd socket_;
  UniqueFd ram_fd_;
  UniqueFd ring_fd_;
  std::byte* ram_ = nullptr;
  uint64_t next_seq_ = 1;
  bool ended_ = false;
  std::map<uint64_t, TestFrame> replies_;
};

// The SynIC level. VP n has its SIMP in page 2n+1, its SIEFP in page 2n+2. With
// MEDIATED delivery the VMM writes them.
class TestVmm : public TestVmmBase {
 public:
  explicit TestVmm(const std::string& path, uint32_t vp_count = 1,
                   uint32_t delivery_mode = kLinkDeliveryDirect, int ram_seals = SealShrink(),
                   int ring_seals = SealShrink())
      : TestVmmBase(path, ram_seals, ring_seals),
        vp_count_(vp_count),
        delivery_mode_(delivery_mode) {}

  // HELLO, memory, SYNIC of all VPs, START. false: it was refused.
  bool SetUp();
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
  uint64_t messages_sent() const { return messages_sent_; }  // MSG_SEND frames seen
  void RefuseEvents() { refuse_events_ = true; }

  // Guest code of many tests: negotiate, list offers, GPADL 1 over the ring
  // pages of channel 1, open. The ids are what the server gave.
  bool ConnectBus(uint32_t version = 0x00040000, uint32_t connection = 1);
  bool CreateRingGpadl();
  uint32_t OpenChannel(uint32_t target_vp = 0);  // the status in OpenResult
  uint32_t channel_connection() const { return channel_connection_; }
  // The monitor pages that ConnectBus names from now on.
  void NameMonitorPages(uint64_t parent_to_child_gpa, uint64_t child_to_parent_gpa) {
    parent_to_child_gpa_ = parent_to_child_gpa;
    child_to_parent_gpa_ = child_to_parent_gpa;
  }
  // Bytes 188 and 189 of the offer: monitor id, and 0x100 if it is allocated.
  uint32_t channel_monitor() const { return channel_monitor_; }

 private:
  struct Sint {
    UniqueFd irq;
    UniqueFd ack;
  };
  bool Answer(TestFrame& frame) override;
  void Look() override;
  LinkMsgResult Deliver(const LinkMsgSendWire& message);
  Sint& SintOf(uint32_t vp);
  std::byte* Slot(uint32_t vp) const { return page(2 * vp + 1) + 2 * 256; }
  std::byte* FlagsWord(uint32_t vp, uint32_t flag) const {
    return page(2 * vp + 2) + 2 * 256 + flag / 32 * 4;
  }

  const uint32_t vp_count_;
  const uint32_t delivery_mode_;
  uint64_t next_post_ = 1;
  uint64_t acknowledged_ = 0;
  uint64_t messages_sent_ = 0;
  bool refuse_events_ = false;
  uint32_t channel_connection_ = 0;
  uint32_t channel_monitor_ = 0;
  uint64_t parent_to_child_gpa_ = 0;
  uint64_t child_to_parent_gpa_ = 0;
  std::map<uint32_t, UniqueFd> doorbells_;
  std::set<std::pair<LinkType, uint32_t>> unanswered_;
  std::map<uint32_t, bool> enabled_;                          // by VP
  std::map<uint32_t, Sint> sints_;                            // by VP; SINT 2
  std::map<std::pair<uint32_t, uint32_t>, UniqueFd> events_;  // by VP and flag
};

}  // namespace vmbfs::hyperv
