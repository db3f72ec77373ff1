// The Host: recorded state, live VMs, and the order in which both change.

#pragma once

#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/mutex/mutex.h"
#include "core/resolver/resolver.h"
#include "core/state/state_store.h"
#include "core/vm/data_plane.h"
#include "core/vm/vm_registry.h"

namespace vmbfs {

// Microseconds since the epoch.
using WallClock = std::function<int64_t()>;

// Lists and inspect wait this long at most, for all VMs together.
inline constexpr std::chrono::milliseconds kLiveAnswerMax{1000};

// Locks: mutation_mutex_ is held through a whole mutation, disk and strands
// included, and is taken first; the locks of the registry and of the store are
// taken under it and take no other.
class HostImpl final : public Host {
 public:
  static constexpr size_t kVmsMax = 20'000;
  static constexpr size_t kPageVmsMax = 1'000;

  static absl::StatusOr<std::unique_ptr<Host>> Start(const HostOptions& options,
                                                     std::unique_ptr<StateStore> store,
                                                     WallClock now_us);
  ~HostImpl() override;

  absl::StatusOr<VmView> CreateVm(const std::string& name, const VmOptions& options) override;
  absl::StatusOr<VmView> GetVm(const std::string& name) override;
  absl::StatusOr<VmPage> ListVms(const std::string& after, size_t limit) override;
  absl::Status DeleteVm(const std::string& name, bool force, const std::string& etag) override;

  absl::StatusOr<AttachmentView> Attach(const std::string& vm, DeviceKind device,
                                        const FileContent& content) override;
  absl::StatusOr<AttachmentView> GetAttachment(const std::string& vm, DeviceKind device) override;
  absl::StatusOr<AttachmentView> Swap(const std::string& vm, DeviceKind device,
                                      const FileContent& content, const std::string& etag) override;
  absl::StatusOr<AttachmentView> AttachOrSwap(const std::string& vm, DeviceKind device,
                                              const FileContent& content,
                                              const std::string& etag) override;
  absl::Status Detach(const std::string& vm, DeviceKind device, bool force,
                      const std::string& etag) override;

  BlobStore& blobs() override { return *blobs_; }
  uint64_t upload_bytes_max() const override;
  absl::StatusOr<inspect::Node> Inspect(std::string_view path, uint32_t depth) override;

 private:
  HostImpl(const HostOptions& options, std::unique_ptr<StateStore> store, WallClock now_us);

  // host_start.cc: loads and serves what is recorded.
  absl::Status Load();
  absl::Status LoadVm(const VmRecord& record);
  absl::Status LoadAttachment(const AttachmentRecord& record);

  absl::StatusOr<VmEntry> Require(const std::string& vm) const;
  absl::StatusOr<VmEntry> RequireAttachment(const std::string& vm, DeviceKind device) const;
  std::string LinkPathOf(const std::string& vm) const;
  // The content as the device's next open gets it. Waits for the disk.
  absl::StatusOr<LiveBacking> Resolve(DeviceKind device, const FileContent& content);

  // The part of each mutation that is one at a time; returns the new entry.
  absl::StatusOr<VmEntry> CreateVmInOrder(const std::string& name, const VmOptions& options)
      VMBFS_EXCLUDES(mutation_mutex_);
  absl::StatusOr<VmEntry> AttachInOrder(const std::string& vm, DeviceKind device,
                                        LiveBacking backing) VMBFS_EXCLUDES(mutation_mutex_);
  absl::StatusOr<VmEntry> SwapInOrder(const std::string& vm, DeviceKind device, LiveBacking backing,
                                      const std::string& etag) VMBFS_EXCLUDES(mutation_mutex_);
  absl::StatusOr<VmEntry> AttachOrSwapInOrder(const std::string& vm, DeviceKind device,
                                              LiveBacking backing, const std::string& etag)
      VMBFS_EXCLUDES(mutation_mutex_);
  // Of these two: the VM has nothing, or something, on the device.
  absl::StatusOr<VmEntry> AttachTo(VmEntry entry, DeviceKind device, LiveBacking backing)
      VMBFS_REQUIRES(mutation_mutex_);
  absl::StatusOr<VmEntry> SwapOn(VmEntry entry, DeviceKind device, LiveBacking backing)
      VMBFS_REQUIRES(mutation_mutex_);

  const HostOptions options_;
  const WallClock now_us_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  const std::unique_ptr<StateStore> store_;
  std::unique_ptr<BlobStore> blobs_;  // set once, by Start
  Resolver resolver_;
  // Joined before the strands end, and destroyed after them: what ends with a
  // strand may still leave descriptors to it.
  boost::asio::thread_pool pool_;
  DataPlane data_plane_;
  Mutex mutation_mutex_;
  VmRegistry registry_;
};

}  // namespace vmbfs
