// An open channel of GuestDriver.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_link_socket.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs::hyperv {

class DriverChannel;

// What a channel needs of its driver.
class ChannelDriver {
 public:
  virtual ~ChannelDriver() = default;
  // Takes what the host left, or sleeps until something may be there.
  virtual absl::Status Pump(Deadline deadline) = 0;
  // When a call that begins now must end.
  virtual Deadline NextDeadline() const = 0;
  virtual void Forget(const DriverChannel& channel) = 0;
};

// Thread safety: the guest's thread.
// Ownership: its pages stay allocated while it lives.
class DriverChannel final : public GuestChannel {
 public:
  DriverChannel(ChannelDriver& driver, GuestOffer offer, uint32_t gpadl_id,
                std::shared_ptr<const GuestPages> pages, std::unique_ptr<Channel> channel)
      : driver_(driver),
        offer_(std::move(offer)),
        gpadl_id_(gpadl_id),
        pages_(std::move(pages)),
        pipe_(std::move(channel)) {}
  ~DriverChannel() override { driver_.Forget(*this); }

  const GuestOffer& offer() const override { return offer_; }
  MessagePipe& pipe() override { return pipe_; }
  std::optional<uint32_t> last_signal_vp() const override { return last_signal_vp_; }
  absl::Status Wait() override { return WaitUntil(driver_.NextDeadline()); }
  absl::Status SendDeferred(PipeMessageType type, std::span<const std::byte> data) override;
  absl::StatusOr<std::span<std::byte>> Exchange(std::span<const std::byte> message,
                                                std::span<std::byte> buffer) override;

  uint32_t gpadl_id() const { return gpadl_id_; }
  const GuestPages& pages() const { return *pages_; }

  // The channel's event flag was set on processor `vp`.
  void Signalled(uint32_t vp) {
    signalled_ = true;
    last_signal_vp_ = vp;
  }
  // The offer was rescinded, or the connection ended.
  void Revoke() { revoked_ = true; }

 private:
  absl::Status WaitUntil(Deadline deadline);
  // Calls `write` until it says true, and waits for room in between.
  template <typename Write>
  absl::Status WhenRoom(size_t bytes, Deadline deadline, Write write);

  ChannelDriver& driver_;
  const GuestOffer offer_;
  const uint32_t gpadl_id_;
  const std::shared_ptr<const GuestPages> pages_;
  MessagePipe pipe_;  // after the pages it lies in
  bool signalled_ = false;
  bool revoked_ = false;
  std::optional<uint32_t> last_signal_vp_;
};

}  // namespace vmbfs::hyperv
