// How many descriptors the process may still open.
//
// Running out of them hurts all VMs at once, and the control plane with them; so
// what comes last is refused before.

#pragma once

#include <cstddef>

#include "absl/status/status.h"

namespace vmbfs {

// Of a VM that is attached and has no VMM: the socket of its link. Content takes one
// more for each digest, however many VMs show it. While a VMM is connected its VM
// takes one for the connection, each memory region, each processor's interrupt and
// each open channel besides.
inline constexpr size_t kDescriptorsPerVm = 1;

// Kept back for VMMs that connect, uploads and calls: of a limit of 8,192 or more,
// 1,024; an eighth of a lower one.
size_t DescriptorsKeptBack(size_t max);

// Whether `more` descriptors may be opened. Looks at all that are open.
//
// Errors: kResourceExhausted, with the numbers and a way out.
absl::Status CheckDescriptorRoom(size_t more);

// The same for a daemon that has opened what its VMs need: whether kDescriptorsToStart
// are left. Fewer than are kept back, since content and VMMs may have taken them
// before a restart, which must not fail of it.
inline constexpr size_t kDescriptorsToStart = 64;
absl::Status CheckDescriptorsToStart();

}  // namespace vmbfs
