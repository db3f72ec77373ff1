// The VMBus driver of the guest in user space: what an operating system's or
// the firmware's does over SynIC messages, in blocking style.
//
// Trust: the server's messages are checked; one that breaks the rules ends the
// guest's use of it with kDataLoss, as the firmware's fail-fast would.
// Rules: shared/specs/vmbus.md sections 2, 8 and 11.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_channel.h"
#include "hyperv/guest/guest_messages.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/guest_synic.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

// Everything of Guest. Contracts are guest.h's.
//
// Bounds: kProcessorsMax processors; what the server can make it keep is
// bounded by kChannelIdMax offers and kAnswersMax unread answers.
class GuestDriver final : public Guest, private ChannelDriver {
 public:
  static constexpr uint32_t kProcessorsMax = 64;
  static constexpr size_t kAnswersMax = 64;

  static absl::StatusOr<std::unique_ptr<GuestDriver>> Create(const GuestOptions& options);

  absl::Status Connect() override;
  std::string version() const override;
  const std::vector<GuestOffer>& offers() const override { return offers_; }
  absl::StatusOr<GuestOffer> WaitForOffer(const Guid& interface_id,
                                          const Guid& instance_id) override;
  absl::Status WaitForRescind(uint32_t channel_id) override;
  absl::StatusOr<std::unique_ptr<GuestChannel>> Open(const GuestOffer& offer) override;
  absl::Status Close(std::unique_ptr<GuestChannel> channel) override;
  absl::Status Release(uint32_t channel_id) override;
  absl::Status ModifyChannel(uint32_t channel_id, uint32_t target_vp) override;
  absl::Status Unload() override;
  absl::Status ResetVm() override;
  uint32_t PostRaw(uint32_t connection, std::span<const std::byte> message) override;
  absl::StatusOr<std::shared_ptr<const GuestPages>> AllocateBuffer(size_t pages) override {
    return AllocatePages(pages, traits_.ring_layout);
  }
  std::span<std::byte> ram() override { return ram_->bytes(); }
  std::vector<std::span<std::byte>> RingPages(const GuestChannel& channel) override;
  std::span<std::byte> RingBytes(const GuestChannel& channel) override;

 private:
  // What the messages of the moment mean.
  enum class Phase {
    kDisconnected,  // nothing is expected; what comes is left over
    kContacting,    // only a version response counts
    kEnumerating,   // offers, and nothing else for the firmware
    kConnected,
    kUnloading,  // only the unload's completion counts
  };

  struct Gpadl {
    uint32_t channel_id = 0;
    std::shared_ptr<const GuestPages> pages;
  };

  explicit GuestDriver(const GuestOptions& options);
  absl::Status SetUp();
  absl::StatusOr<std::shared_ptr<const GuestPages>> AllocatePages(size_t count, RamLayout layout);
  uint64_t Gpa(size_t fixed_page) const;
  size_t ChildToParentPage() const;

  // guest_driver.cc: the connection.
  absl::StatusOr<bool> TryVersion(uint32_t version, Deadline deadline);
  void EndConnection();

  // guest_driver_messages.cc: the message pump.
  absl::Status Pump(Deadline deadline) override;
  Deadline NextDeadline() const override;
  bool TakeAll();
  void Dispatch(const TakenMessage& message);
  void HandleOffer(const TakenMessage& message);
  void HandleRescind(const TakenMessage& message);
  void HandleAnswer(MessageType type, const TakenMessage& message);
  void Break(const std::string& reason);
  absl::Status Post(const GuestMessage& message, Deadline deadline);
  absl::Status PostTo(uint32_t connection, const GuestMessage& message, Deadline deadline);
  // To be called before the request is posted: its answer may come at once.
  void Expect(MessageType type);
  absl::StatusOr<TakenMessage> NextAnswer(Deadline deadline, std::optional<uint32_t> channel_id);
  // The awaited answer that `matches`; kAborted when `channel_id` is rescinded.
  template <typename Message, typename Matches>
  absl::StatusOr<Message> Await(Deadline deadline, std::optional<uint32_t> channel_id,
                                Matches matches);

  // guest_driver_channels.cc: GPADLs and channels.
  void Forget(const DriverChannel& channel) override;
  void SignalHost(const GuestOffer& offer);
  void InitialiseRings(const GuestPages& pages);
  absl::StatusOr<uint32_t> CreateGpadl(uint32_t channel_id,
                                       const std::shared_ptr<const GuestPages>& pages,
                                       Deadline deadline);
  absl::Status TeardownGpadl(uint32_t gpadl_id, Deadline deadline);
  absl::StatusOr<uint32_t> NewGpadlId();
  absl::StatusOr<std::unique_ptr<DriverChannel>> MapChannel(
      const GuestOffer& offer, uint32_t gpadl_id, const std::shared_ptr<const GuestPages>& pages);
  absl::Status OpenMapped(const DriverChannel& channel, Deadline deadline);

  const GuestOptions options_;
  const ProfileTraits traits_;
  std::unique_ptr<GuestRam> ram_;
  std::shared_ptr<const GuestPages> fixed_pages_;  // SynIC pages, then contact pages
  GuestMemory memory_;                             // the same RAM, as the rings map it
  std::vector<GuestSynic> synics_;                 // by processor
  std::unique_ptr<GuestVmm> vmm_;

  Phase phase_ = Phase::kDisconnected;
  uint32_t version_ = 0;
  uint32_t message_connection_ = 0;
  std::vector<GuestOffer> offers_;
  std::set<uint32_t> rescinded_;  // and not released
  std::map<uint32_t, DriverChannel*> channels_;
  std::map<uint32_t, Gpadl> gpadls_;
  uint32_t next_gpadl_id_;
  MessageType expected_ = MessageType::kInvalid;
  std::deque<TakenMessage> answers_;
  absl::Status broken_;  // how the server broke the protocol
};

}  // namespace vmbfs::hyperv
