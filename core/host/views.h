// What the control plane is shown of a VM: what is recorded, and how it is now.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/host/host.h"
#include "core/resolver/backing_source.h"
#include "core/state/state_store.h"
#include "core/vm/device_kind.h"
#include "core/vm/vm.h"
#include "core/vm/vm_registry.h"

namespace vmbfs {

std::string Etag(uint64_t revision);  // "r12"

BackingSource SourceOf(const AttachmentRecord& record);

// `status` is nullopt when the VM's strand did not answer.
// REQUIRES: the entry has this device.
AttachmentView MakeAttachmentView(const VmEntry& entry, DeviceKind device,
                                  const std::optional<VmStatus>& status);
VmView MakeVmView(const VmEntry& entry, const std::string& link_path,
                  const std::optional<VmStatus>& status);

}  // namespace vmbfs
