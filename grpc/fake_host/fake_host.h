// A host in memory, for tests of the control plane.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "core/mutex/mutex.h"

namespace vmbfs::rpc {

// Thread safety: any thread.
class FakeHost final : public Host {
 public:
  explicit FakeHost(uint64_t upload_bytes_max = uint64_t{64} << 20);
  ~FakeHost() override;

  // A guest opens or closes the channel of a device that is attached.
  void SetOpen(const std::string& vm, DeviceKind device, bool open) VMBFS_EXCLUDES(mutex_);
  void SetFault(const std::string& vm, DeviceKind device, const std::string& fault)
      VMBFS_EXCLUDES(mutex_);
  // What Inspect shows.
  void SetTree(inspect::Node root) VMBFS_EXCLUDES(mutex_);
  // While held, GetVm does not return.
  void HoldGetVm(bool hold) { hold_get_vm_ = hold; }
  int get_vm_waiting() const { return get_vm_waiting_; }
  // Begun and neither finished nor destroyed.
  int uploads_under_way() const { return *uploads_; }
  size_t blob_count() const;

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
  BlobStore& blobs() override;
  uint64_t upload_bytes_max() const override { return upload_bytes_max_; }
  absl::StatusOr<inspect::Node> Inspect(std::string_view path, uint32_t depth) override;

 private:
  class Blobs;

  absl::StatusOr<VmView*> FindVm(const std::string& name) VMBFS_REQUIRES(mutex_);
  absl::StatusOr<AttachmentView*> FindAttachment(const std::string& vm, DeviceKind device)
      VMBFS_REQUIRES(mutex_);
  absl::StatusOr<AttachmentView> AttachTo(VmView& vm, DeviceKind device, const FileContent& content)
      VMBFS_REQUIRES(mutex_);
  absl::StatusOr<AttachmentView> SwapOn(AttachmentView& attachment, const FileContent& content,
                                        const std::string& etag) VMBFS_REQUIRES(mutex_);
  absl::StatusOr<FileContent> Resolve(DeviceKind device, const FileContent& content);
  std::string NextEtag() VMBFS_REQUIRES(mutex_);

  const uint64_t upload_bytes_max_;
  const std::shared_ptr<std::atomic<int>> uploads_ = std::make_shared<std::atomic<int>>(0);
  const std::unique_ptr<Blobs> blobs_;
  std::atomic<bool> hold_get_vm_{false};
  std::atomic<int> get_vm_waiting_{0};

  Mutex mutex_;
  std::map<std::string, VmView> vms_ VMBFS_GUARDED_BY(mutex_);
  inspect::Node tree_ VMBFS_GUARDED_BY(mutex_);
  int64_t changes_ VMBFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace vmbfs::rpc
