// One host: its VMs, their attachments and the uploaded content, kept over
// restarts. All that the control plane can ask for, and nothing of RPC.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/blob/blob_store.h"
#include "core/inspect/node.h"
#include "core/vm/device_kind.h"
#include "core/vm/vm_options.h"

namespace vmbfs {

inline constexpr uint64_t kImcBytesMax = 16 << 20;

// A file by its content, shown to the guest under `name`.
struct FileContent {
  std::string sha256;  // 64 lower-case hex digits
  // Of a request: the size the caller counts on, or 0 for whatever the blob has.
  uint64_t size_bytes = 0;
  std::string name;  // what the guest sees; always imc.hiv on imc
};

struct AttachmentView {
  std::string vm;
  DeviceKind device{};
  FileContent wanted;                 // what the next open gets
  std::optional<FileContent> active;  // what an open channel reads
  bool open = false;
  std::string fault;           // why service on the open channel ended
  std::string etag;            // changes with every change of `wanted`
  int64_t create_time_us = 0;  // since the epoch
  int64_t update_time_us = 0;
};

struct VmView {
  std::string name;
  std::optional<uid_t> owner_uid;
  bool allow_unsealed_memory = false;
  bool monitored = false;
  std::string link_path;
  bool link_connected = false;
  std::string etag;
  int64_t create_time_us = 0;
  std::vector<AttachmentView> attachments;  // imc, then boot
  // From ListVms and CreateVm: why link_connected, and open, active and fault of
  // the attachments, are not known; empty when they are.
  std::string live_error;
};

// A stable name for a machine and a sentence for a person travel with every
// error: reason in the payload kReasonUrl, e.g. "VM_NOT_FOUND".
inline constexpr std::string_view kReasonUrl = "type.vmbfs/reason";
absl::Status HostError(absl::StatusCode code, std::string_view reason, std::string_view message);
std::string ReasonOf(const absl::Status& status);  // empty when it carries none

struct HostOptions {
  std::filesystem::path state_dir;
  std::filesystem::path runtime_dir;  // links are made in runtime_dir/vm
  uint64_t boot_bytes_max = uint64_t{4} << 30;
  // RDMA reads are offered to guests for files of at least so many bytes; 0: never.
  uint64_t rdma_bytes_min = uint64_t{1} << 20;
  unsigned data_plane_threads = 0;  // 0: one a core, at most 8
  // How long a data-plane thread looks for a guest's next request before it sleeps, and
  // how much of a core that may take over any second; 0 turns it off.
  uint32_t spin_us = 50;
  uint32_t spin_percent = 20;
  unsigned blocking_threads = 4;
};

// Thread safety: every method from any thread but a VM's strand; calls block on
// disk and on the VM's strand (bounded by kStrandAnswerMax).
// Durability: a mutation that returned OK survives kill -9 and power loss; one
// that failed leaves nothing behind.
// Errors: kNotFound, kAlreadyExists, kInvalidArgument, kFailedPrecondition,
// kAborted (etag), kResourceExhausted, kDeadlineExceeded (a strand did not
// answer), kInternal (disk).
class Host {
 public:
  // Locks and loads the state, makes every VM's link and serves them: when it
  // returns, VMMs can connect.
  // Errors: kFailedPrecondition  another daemon holds the state directory, or
  //                              its schema is newer than this program.
  static absl::StatusOr<std::unique_ptr<Host>> Start(const HostOptions& options);
  virtual ~Host() = default;  // stops serving; links are unlinked

  virtual absl::StatusOr<VmView> CreateVm(const std::string& name, const VmOptions& options) = 0;
  virtual absl::StatusOr<VmView> GetVm(const std::string& name) = 0;
  struct VmPage {
    std::vector<VmView> vms;  // by name
    std::string next_after;   // empty: the last page
  };
  // VMs with a name above `after`, at most `limit`.
  virtual absl::StatusOr<VmPage> ListVms(const std::string& after, size_t limit) = 0;
  // Removes the VM with its attachments. Without `force` refused while a guest
  // has a channel open. `etag`: empty or the VM's current one.
  virtual absl::Status DeleteVm(const std::string& name, bool force, const std::string& etag) = 0;

  // `content.sha256` must have been uploaded. On imc the name is ignored.
  virtual absl::StatusOr<AttachmentView> Attach(const std::string& vm, DeviceKind device,
                                                const FileContent& content) = 0;
  virtual absl::StatusOr<AttachmentView> GetAttachment(const std::string& vm,
                                                       DeviceKind device) = 0;
  virtual absl::StatusOr<AttachmentView> Swap(const std::string& vm, DeviceKind device,
                                              const FileContent& content,
                                              const std::string& etag) = 0;
  // Attaches where nothing is attached, and swaps otherwise. Where the content is
  // the wanted one already nothing changes, whatever the etag: the call can be
  // repeated until it is answered.
  // Errors: also kAborted for an etag where nothing is attached.
  virtual absl::StatusOr<AttachmentView> AttachOrSwap(const std::string& vm, DeviceKind device,
                                                      const FileContent& content,
                                                      const std::string& etag) = 0;
  virtual absl::Status Detach(const std::string& vm, DeviceKind device, bool force,
                              const std::string& etag) = 0;

  virtual BlobStore& blobs() = 0;
  // The largest upload that any device accepts.
  virtual uint64_t upload_bytes_max() const = 0;

  virtual absl::StatusOr<inspect::Node> Inspect(std::string_view path, uint32_t depth) = 0;
};

}  // namespace vmbfs
