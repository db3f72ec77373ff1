#include <cstring>

#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {

#if defined(VMBFS_TSAN)

namespace {

// memcpy is intercepted by ThreadSanitizer also where the caller is excluded,
// and a plain loop may be compiled to a memcpy; volatile bytes are neither.
__attribute__((no_sanitize("thread"), noinline)) void CopyBytes(volatile std::byte* to,
                                                                const volatile std::byte* from,
                                                                size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) to[i] = from[i];
}

}  // namespace

void CopyFromGuest(std::byte* to, const std::byte* guest_from, size_t bytes) {
  CopyBytes(to, guest_from, bytes);
}

void CopyToGuest(std::byte* guest_to, const std::byte* from, size_t bytes) {
  CopyBytes(guest_to, from, bytes);
}

#else

void CopyFromGuest(std::byte* to, const std::byte* guest_from, size_t bytes) {
  if (bytes != 0) std::memcpy(to, guest_from, bytes);
}

void CopyToGuest(std::byte* guest_to, const std::byte* from, size_t bytes) {
  if (bytes != 0) std::memcpy(guest_to, from, bytes);
}

#endif

}  // namespace vmbfs::hyperv
