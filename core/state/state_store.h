// What survives a restart: VMs and their attachments.
//
// Trust: an administrator may have edited the database; what is read is checked
// for its form. Format: schema.h, README.md.

#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace vmbfs {

struct VmRecord {
  std::string name;
  std::optional<uid_t> owner_uid;
  bool allow_unsealed_memory = false;
  bool monitored = false;
  int64_t create_time_us = 0;  // since the epoch
  uint64_t revision = 0;       // of the last change to the VM or its attachments
};

struct AttachmentRecord {
  std::string vm;
  std::string device;       // "imc", "boot"
  std::string source_kind;  // the resolver's name for the rest: "blob"
  std::string sha256;       // 64 lower-case hex digits
  uint64_t size_bytes = 0;
  std::string file_name;  // what the guest sees
  int64_t create_time_us = 0;
  int64_t update_time_us = 0;
  uint64_t revision = 0;
};

// The durable state of one host.
//
// A change that returned OK survives kill -9 and power loss; one that failed
// left nothing behind. Each change takes the next revision, a number that is
// never given twice, and stores it in what was changed and in its VM.
//
// Thread safety: any thread; calls wait for the disk.
// Errors, of all calls: kInternal with the store's own reason,
// kResourceExhausted when the disk is full, kDataLoss when the database is
// damaged.
class StateStore {
 public:
  struct Contents {
    std::vector<VmRecord> vms;                  // by name
    std::vector<AttachmentRecord> attachments;  // by VM, then device
  };

  virtual ~StateStore() = default;

  // Errors: kDataLoss when a row has not the form that this program writes;
  // the message names its table and key.
  virtual absl::StatusOr<Contents> Load() = 0;

  // Stores a VM (the record's own revision is ignored); returns the revision.
  // Errors: kAlreadyExists.
  virtual absl::StatusOr<uint64_t> InsertVm(const VmRecord& vm) = 0;
  // Removes a VM and its attachments. Errors: kNotFound.
  virtual absl::Status DeleteVm(std::string_view name) = 0;

  // Errors: kAlreadyExists; kNotFound when there is no such VM.
  virtual absl::StatusOr<uint64_t> InsertAttachment(const AttachmentRecord& attachment) = 0;
  // Replaces all but vm, device and create_time_us. Errors: kNotFound.
  virtual absl::StatusOr<uint64_t> UpdateAttachment(const AttachmentRecord& attachment) = 0;
  // Returns the VM's new revision. Errors: kNotFound.
  virtual absl::StatusOr<uint64_t> DeleteAttachment(std::string_view vm,
                                                    std::string_view device) = 0;
};

// Opens the store in `folder`, which is made (mode 0700) when missing, and holds
// its lock as long as the store lives.
//
// Errors:
//   kFailedPrecondition  another daemon holds the folder; or its schema is newer
//                        than this program (the message has both numbers).
//   kInternal            the system's or SQLite's own reason.
absl::StatusOr<std::unique_ptr<StateStore>> OpenStateStore(const std::filesystem::path& folder);

}  // namespace vmbfs
