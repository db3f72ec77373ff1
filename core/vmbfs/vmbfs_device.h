// The vmbfs device of a VM: a channel device that answers from a backing.
//
// Trust: messages are the guest's. Rules: shared/specs/vmbfs.md, README.md.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "core/backing/backing.h"
#include "core/vmbfs/vmbfs_status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/guid/guid.h"

namespace vmbfs {

// Runs blocking work elsewhere and brings its end back.
//
// Thread safety: called on a VM's strand.
class BlockingRunner {
 public:
  virtual ~BlockingRunner() = default;
  // Runs `work` on a thread that may wait, then `done` on the strand this
  // runner was made for. Both are destroyed on the strand or after it ended.
  // With too much work waiting, `done` may come without it.
  virtual void Run(std::function<void()> work, std::function<void()> done) = 0;
};

extern const hyperv::Guid kVmbfsInterfaceId;
extern const hyperv::Guid kImcInstanceId;
extern const hyperv::Guid kBootInstanceId;

struct VmbfsDeviceOptions {
  // RDMA reads are offered for files of at least so many bytes; 0: they are off.
  uint64_t rdma_bytes_min = 0;
};

// Thread safety: the VM's strand.
// Swaps: SetBacking changes what the next open gets; an open channel keeps
// reading what it opened with.
class VmbfsDevice final : public hyperv::ChannelDevice {
 public:
  // REQUIRES: backing is not null; runner outlives the device.
  VmbfsDevice(const hyperv::Guid& instance_id, std::shared_ptr<const Backing> backing,
              BlockingRunner& runner, const VmbfsDeviceOptions& options = {});
  ~VmbfsDevice() override;

  void SetBacking(std::shared_ptr<const Backing> backing);
  // Called for each request that is answered with status 3, with the reason: a
  // broken one, or one that our own side failed. Set before the first open. May
  // not call back.
  void SetReporter(std::function<void(std::string_view reason)> reporter);
  // What the open channel reads; null when none is open.
  std::shared_ptr<const Backing> active() const;
  VmbfsDeviceStatus status() const;

  const hyperv::ChannelOffer& offer() const override;
  absl::Status Open(std::unique_ptr<hyperv::Channel> channel, std::function<void()> wake) override;
  absl::StatusOr<hyperv::ChannelTurn> Run() override;
  absl::StatusOr<hyperv::Armed> Arm() override;
  void Close() override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmbfs
