#include "core/allocation_count/allocation_count.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constinit std::atomic<uint64_t> of_all_threads = 0;
constinit thread_local uint64_t of_this_thread = 0;

void* CountedAllocate(size_t bytes) {
  of_all_threads.fetch_add(1, std::memory_order_relaxed);
  ++of_this_thread;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  std::abort();
}

}  // namespace

void* operator new(size_t bytes) { return CountedAllocate(bytes); }
void* operator new[](size_t bytes) { return CountedAllocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace vmbfs {

uint64_t AllocationsOfThisThread() { return of_this_thread; }

uint64_t AllocationsOfOtherThreads() { return of_all_threads - of_this_thread; }

}  // namespace vmbfs
