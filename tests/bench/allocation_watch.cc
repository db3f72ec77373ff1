// Loaded into the daemon by tools/bench --short (LD_PRELOAD): counts what each
// thread allocates, operator new included, in a file that the bench reads.
//
// The file, named by VMBFS_ALLOCATION_WATCH, is an array of kThreadsMax entries
// in the order of the threads' first allocations; threads beyond it, and what was
// allocated before this library was loaded, are not counted.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

// The C library's own, by their second names.
extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

constexpr size_t kThreadsMax = 256;

struct Entry {
  uint64_t thread = 0;  // the kernel's number; 0: no thread yet
  uint64_t allocations = 0;
};

constinit std::atomic<Entry*> entries = nullptr;
constinit std::atomic<size_t> entries_taken = 0;
// Found without an allocation: the library is loaded at the start.
[[gnu::tls_model("initial-exec")]] constinit thread_local Entry* own = nullptr;

void Count() {
  if (own == nullptr) {
    Entry* all = entries.load(std::memory_order_acquire);
    if (all == nullptr) return;
    const size_t index = entries_taken.fetch_add(1, std::memory_order_relaxed);
    if (index >= kThreadsMax) return;
    own = &all[index];
    own->thread = static_cast<uint64_t>(::gettid());
  }
  std::atomic_ref<uint64_t>(own->allocations).fetch_add(1, std::memory_order_relaxed);
}

[[gnu::constructor]] void Map() {
  const char* path = std::getenv("VMBFS_ALLOCATION_WATCH");
  const int fd = path == nullptr ? -1 : ::open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  constexpr size_t kBytes = kThreadsMax * sizeof(Entry);
  if (::ftruncate(fd, kBytes) == 0) {
    void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) entries.store(static_cast<Entry*>(memory), std::memory_order_release);
  }
  ::close(fd);
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) noexcept {
  Count();
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) noexcept {
  Count();
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, size_t bytes) noexcept {
  Count();
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  Count();
  return __libc_memalign(alignment, bytes);
}

}  // extern "C"
