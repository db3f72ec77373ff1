// All VMs of the host, by name: what is recorded of each, and the live VM.

#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/mutex/mutex.h"
#include "core/state/state_store.h"
#include "core/vm/device_kind.h"
#include "core/vm/vm.h"

namespace vmbfs {

// Thread safety: a value; the Vm has its own rules.
struct VmEntry {
  VmRecord record;
  std::map<DeviceKind, AttachmentRecord> attachments;
  std::shared_ptr<Vm> vm;
};

// Thread safety: any thread. Its lock is held for the look-up alone, and no
// other lock is taken under it.
class VmRegistry {
 public:
  // Adds the entry, or replaces the one of the same name.
  void Put(VmEntry entry) VMBFS_EXCLUDES(mutex_);
  void Erase(std::string_view name) VMBFS_EXCLUDES(mutex_);

  std::optional<VmEntry> Find(std::string_view name) const VMBFS_EXCLUDES(mutex_);
  // Entries with a name above `after`, in order, at most `limit`.
  std::vector<VmEntry> After(std::string_view after, size_t limit) const VMBFS_EXCLUDES(mutex_);
  std::vector<std::string> Names() const VMBFS_EXCLUDES(mutex_);
  size_t size() const VMBFS_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::map<std::string, VmEntry, std::less<>> entries_ VMBFS_GUARDED_BY(mutex_);
};

}  // namespace vmbfs
