// The byte mode of pipe_fuzz.

#pragma once

#include <cstddef>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {

// BytePipe against a queue of bytes and ends: what a read returns, what it leaves
// in the ring, over restarts of the host; and what a write puts there.
void FuzzByteMode(FuzzInput& input, PageLayout layout, size_t data_pages);

}  // namespace vmbfs::hyperv
