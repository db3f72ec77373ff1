#include "core/vm/vm_registry.h"

#include <utility>

namespace vmbfs {

void VmRegistry::Put(VmEntry entry) {
  std::string name = entry.record.name;
  MutexLock lock(mutex_);
  std::swap(entries_[std::move(name)], entry);
  // What was replaced is destroyed with `entry`, after the lock is gone.
}

void VmRegistry::Erase(std::string_view name) {
  VmEntry erased;
  MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return;
  erased = std::move(found->second);
  entries_.erase(found);
}

std::optional<VmEntry> VmRegistry::Find(std::string_view name) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  return found->second;
}

std::vector<VmEntry> VmRegistry::After(std::string_view after, size_t limit) const {
  std::vector<VmEntry> entries;
  MutexLock lock(mutex_);
  for (auto at = entries_.upper_bound(after); at != entries_.end() && entries.size() < limit;
       ++at) {
    entries.push_back(at->second);
  }
  return entries;
}

std::vector<std::string> VmRegistry::Names() const {
  std::vector<std::string> names;
  MutexLock lock(mutex_);
  names.reserve(entries_.size());
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

size_t VmRegistry::size() const {
  MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace vmbfs
