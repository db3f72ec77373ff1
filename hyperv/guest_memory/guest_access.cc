#include "hyperv/guest_memory/guest_access.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>

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

void NoteMiss(GuestAccessState& state, uintptr_t address) {
  const size_t misses = state.misses.load(std::memory_order_relaxed);
  if (misses < state.missed.size()) {
    state.missed[misses].store(address, std::memory_order_relaxed);
  }
  state.misses.store(misses + 1, std::memory_order_relaxed);
}

// Calls only what is safe in a signal handler.
void OnBusError(int signal, siginfo_t* info, void*) {
  // Broken memory was found that nobody waits for. Who touches it has a signal of
  // his own, and it may be a guest's and never be touched.
  if (info->si_code == BUS_MCEERR_AO) return;
  const int errno_before = errno;
  GuestAccessState& state = guest_access_state;
  const uintptr_t missed = MissedByte(*info, state);
  if (missed != 0 && ReplacePage(missed)) {
    NoteMiss(state, missed);
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

uintptr_t MissedByte(const siginfo_t& info, const GuestAccessState& state) {
  if (info.si_code <= 0) return 0;  // another process' doing, without an address
  uintptr_t first = reinterpret_cast<uintptr_t>(info.si_addr);
  uintptr_t last = first;
  if (info.si_code == BUS_MCEERR_AR) {
    const auto shift = static_cast<unsigned>(info.si_addr_lsb);
    if (shift >= std::numeric_limits<uintptr_t>::digits) return 0;
    const uintptr_t offset_mask = (uintptr_t{1} << shift) - 1;
    first &= ~offset_mask;
    last |= offset_mask;
  }
  const uintptr_t start = state.start.load(std::memory_order_relaxed);
  const uintptr_t end = state.end.load(std::memory_order_relaxed);
  return last >= start && first < end ? std::max(first, start) : 0;
}

uintptr_t VanishedMemoryWatch::MissedIn(uintptr_t start, size_t bytes) const {
  const GuestAccessState& state = guest_access_state;
  if (vanished() && misses() > state.missed.size()) return start;
  for (size_t i = outer_misses_; i < misses(); ++i) {
    const uintptr_t address = state.missed[i].load(std::memory_order_relaxed);
    if (address >= start && address - start < bytes) return address;
  }
  return 0;
}

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
