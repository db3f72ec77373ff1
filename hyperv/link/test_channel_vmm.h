// A small scripted VMM of the channel level, for tests of the link.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_channel_format.h"
#include "hyperv/link/test_frames.h"
#include "hyperv/link/test_vmm.h"

namespace vmbfs::hyperv {

// Names the channels it is offered 101, 102 and so on, with relids 1, 2, ...
class TestChannelVmm : public TestVmmBase {
 public:
  static constexpr uint32_t kVps = 2;
  static constexpr uint32_t kRingGpadl = 7;

  explicit TestChannelVmm(const std::string& path) : TestVmmBase(path) {}

  // HELLO and memory; START if `start`. false: it was refused.
  bool SetUp(bool start = true);
  bool Start() { return Ask(LinkType::kStart, {}).has_value(); }

  // OFFER and REVOKE as they came.
  bool WaitForOffers(size_t count);
  bool WaitForRevokes(size_t count);
  const std::vector<TestFrame>& offers() const { return offers_; }
  const std::vector<uint32_t>& revoked() const { return revoked_; }
  // From now on OFFER and REVOKE are held; Answer them with these.
  void HoldAnswers() { hold_ = true; }
  void AnswerOffer(size_t index, uint32_t channel);
  void RefuseOffer(size_t index);
  void AnswerRevoke();

  // What a VMM sends; the reply, or nothing when the connection ended.
  std::optional<TestFrame> AddGpadl(uint32_t channel, uint32_t gpadl,
                                    const std::vector<uint64_t>& page_frames,
                                    uint32_t range_count = 1);
  // The page frames of all ring pages as GPADL kRingGpadl. Whether it worked.
  bool AddRing(uint32_t channel);
  std::optional<TestFrame> DeleteGpadl(uint32_t channel, uint32_t gpadl);
  // A payload that opens on kRingGpadl, halves for each ring.
  static LinkOpenWire OpenPayload(uint32_t channel, uint32_t target_vp = 0);
  // Sends OPEN with new eventfds; its seq.
  uint64_t SendOpen(const LinkOpenWire& open);
  std::optional<TestFrame> Open(const LinkOpenWire& open) { return WaitForReply(SendOpen(open)); }
  // Whether the guest was told of success.
  bool Open(uint32_t channel, uint32_t target_vp = 0);
  std::optional<TestFrame> Close(uint32_t channel);
  std::optional<TestFrame> Modify(uint32_t channel, uint32_t target_vp);
  std::optional<TestFrame> Release(uint32_t channel);
  std::optional<TestFrame> Reset();

  // The signals of the channel that was opened last.
  void Kick();
  // How often the guest was interrupted since the last look.
  uint64_t Interrupts();
  bool WaitForInterrupt();
  // The same of the descriptor that the last MODIFY took the place of.
  uint64_t OldInterrupts();

  static uint32_t Status(const std::optional<TestFrame>& reply);  // 0xDEAD: none

 private:
  bool Answer(TestFrame& frame) override;

  bool hold_ = false;
  uint32_t next_channel_ = 101;
  std::vector<TestFrame> offers_;
  std::vector<uint32_t> revoked_;
  std::optional<TestFrame> held_revoke_;
  UniqueFd host_kick_;
  UniqueFd guest_interrupt_;
  UniqueFd old_guest_interrupt_;
};

// Page frames of the test VMM's ring pages.
std::vector<uint64_t> RingFrames();

}  // namespace vmbfs::hyperv
