#include "hyperv/guest_memory/guest_access.h"

#include <signal.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs::hyperv {

constinit thread_local GuestAccessState guest_access_state;

namespace {

// A mapping of huge pages can only be replaced by whole ones.
constexpr std::array<uintptr_t, 3> kPageSizesBytes = {kPageBytes, 2 << 20, 1 << 30};

struct sigaction previous_action;

// Puts zeros of our own where the page of `address` was. mmap, as the handler
// needs it, is a plain system call.
bool ReplacePage(uintptr_t address) {
  for (const uintptr_t page_bytes : kPageSizesBytes) {
    void* const page = reinterpret_cast<void*>(address & ~(page_bytes - 1));
    if (::mmap(page, page_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
      return true;
    }
    if (errno != EINVAL) return false;
  }
  return false;
}

// Calls only what is safe in a signal handler.
void OnBusError(int signal, siginfo_t* info, void*) {
  const int errno_before = errno;
  GuestAccessState& state = guest_access_state;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  // Codes of 0 and less are another process' doing, without an address.
  const bool ours = info->si_code > 0 && address >= state.start.load(std::memory_order_relaxed) &&
                    address < state.end.load(std::memory_order_relaxed);
  if (ours && ReplacePage(address)) {
    state.vanished.store(address, std::memory_order_relaxed);
    errno = errno_before;
    return;
  }
  ::sigaction(signal, &previous_action, nullptr);
  ::raise(signal);
}

bool Install() {
  struct sigaction action{};
  action.sa_sigaction = OnBusError;
  // SA_NODEFER: a SIGBUS that comes while the handler runs is none that it can mend,
  // and what it raises itself takes effect at once.
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  return ::sigaction(SIGBUS, &action, &previous_action) == 0;
}

}  // namespace

void InstallVanishedMemoryHandler() { [[maybe_unused]] static const bool installed = Install(); }

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
  const GuestAccessGuard guard(guest_from, bytes);
  CopyBytes(to, guest_from, bytes);
}

void CopyToGuest(std::byte* guest_to, const std::byte* from, size_t bytes) {
  const GuestAccessGuard guard(guest_to, bytes);
  CopyBytes(guest_to, from, bytes);
}

#else

void CopyFromGuest(std::byte* to, const std::byte* guest_from, size_t bytes) {
  const GuestAccessGuard guard(guest_from, bytes);
  if (bytes != 0) std::memcpy(to, guest_from, bytes);
}

void CopyToGuest(std::byte* guest_to, const std::byte* from, size_t bytes) {
  const GuestAccessGuard guard(guest_to, bytes);
  if (bytes != 0) std::memcpy(guest_to, from, bytes);
}

#endif

}  // namespace vmbfs::hyperv
