// For tests of what must not allocate: every operator new of the program is
// counted. What calls malloc by itself is not seen.
//
// Thread safety: any thread.

#pragma once

#include <cstdint>

namespace vmbfs {

// So far, of the calling thread, and of all threads but it.
uint64_t AllocationsOfThisThread();
uint64_t AllocationsOfOtherThreads();

}  // namespace vmbfs
