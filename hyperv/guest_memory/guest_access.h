// Every look at guest bytes: copies, and atomic words.
//
// Guest memory can vanish under us: the host takes huge pages away, or the VMM
// cuts an unsealed file short. The processor then raises SIGBUS. Each access
// says beforehand which bytes it touches; when the signal comes from there, the
// handler puts a page of zeros where the memory was and the access goes on. A
// VanishedMemoryWatch tells of it afterwards. Memory that is missed anywhere else
// ends the process as if there were no handler.
//
// Trust: the bytes are the guest's and may change at any moment.
// Thread safety: any thread; what is guarded and watched is the thread's own.

#pragma once

#include <signal.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

// Takes SIGBUS over for the process; call it once, before guests are served.
// Without it memory that vanishes ends the process. Later calls do nothing.
void InstallVanishedMemoryHandler();

// What the handler and the accesses of one thread tell each other. Lock-free
// atomics, since the handler interrupts the code that writes them.
struct GuestAccessState {
  // More than the pages of a device's turn; each is missed once only.
  static constexpr size_t kMissesMax = 64;

  std::atomic<uintptr_t> start = 0;  // of the bytes being touched
  std::atomic<uintptr_t> end = 0;    // behind them; 0: none are
  // Where memory was missing, those of outer watches first. Above kMissesMax they
  // are counted only.
  std::atomic<size_t> misses = 0;
  std::array<std::atomic<uintptr_t>, kMissesMax> missed{};
};

// The byte that the access of `state` missed and SIGBUS `info` tells of; 0 when the
// signal is of something else.
//
// A processor that finds broken memory tells where as coarsely as si_addr_lsb says:
// the address may lie before the bytes that were touched.
uintptr_t MissedByte(const siginfo_t& info, const GuestAccessState& state);

// In static storage from the start of a thread: the handler must not be the
// first to ask for it.
extern constinit thread_local GuestAccessState guest_access_state
    __attribute__((tls_model("initial-exec")));

// While it lives, this thread touches the bytes from `start`. An inner one
// takes the place of an outer one until it ends.
class GuestAccessGuard {
 public:
  GuestAccessGuard(const void* start, size_t bytes)
      : outer_start_(guest_access_state.start.load(std::memory_order_relaxed)),
        outer_end_(guest_access_state.end.load(std::memory_order_relaxed)) {
    const auto address = reinterpret_cast<uintptr_t>(start);
    guest_access_state.start.store(address, std::memory_order_relaxed);
    guest_access_state.end.store(address + bytes, std::memory_order_relaxed);
    // The compiler may not move the access out of the guard; the handler runs on
    // this same thread, so the processor need not know.
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~GuestAccessGuard() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    guest_access_state.start.store(outer_start_, std::memory_order_relaxed);
    guest_access_state.end.store(outer_end_, std::memory_order_relaxed);
  }
  GuestAccessGuard(const GuestAccessGuard&) = delete;
  GuestAccessGuard& operator=(const GuestAccessGuard&) = delete;

 private:
  const uintptr_t outer_start_;
  const uintptr_t outer_end_;
};

// Tells which accesses of this thread, since the watch began, met memory that had
// vanished. What an inner watch sees is not told to an outer one. What it means
// for the memory: GuestMemory::CheckVanished.
class VanishedMemoryWatch {
 public:
  VanishedMemoryWatch() : outer_misses_(misses()) {}
  ~VanishedMemoryWatch() {
    guest_access_state.misses.store(outer_misses_, std::memory_order_relaxed);
  }
  VanishedMemoryWatch(const VanishedMemoryWatch&) = delete;
  VanishedMemoryWatch& operator=(const VanishedMemoryWatch&) = delete;

  // Whether any was missed.
  bool vanished() const { return misses() != outer_misses_; }

  // An address missed in the `bytes` from `start`; 0: none was. Where more were
  // missed than are remembered, any place counts as missed: then `start`.
  uintptr_t MissedIn(uintptr_t start, size_t bytes) const;

 private:
  static size_t misses() { return guest_access_state.misses.load(std::memory_order_relaxed); }

  const size_t outer_misses_;
};

// Copies between private memory and bytes that a guest may be writing. They race
// with the guest by nature and are excluded from ThreadSanitizer.
void CopyFromGuest(std::byte* to, const std::byte* guest_from, size_t bytes);
void CopyToGuest(std::byte* guest_to, const std::byte* from, size_t bytes);

// A guest's 32-bit word, in its own byte order.
// REQUIRES: `guest_word` is a multiple of 4 (guest pages are mapped aligned).
inline uint32_t LoadGuestWord(std::byte* guest_word, std::memory_order order) {
  const GuestAccessGuard guard(guest_word, sizeof(uint32_t));
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(guest_word)).load(order);
}
inline void StoreGuestWord(std::byte* guest_word, uint32_t value, std::memory_order order) {
  const GuestAccessGuard guard(guest_word, sizeof(uint32_t));
  std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(guest_word)).store(value, order);
}
// Sets `bits` and returns the word before.
inline uint32_t FetchOrGuestWord(std::byte* guest_word, uint32_t bits, std::memory_order order) {
  const GuestAccessGuard guard(guest_word, sizeof(uint32_t));
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(guest_word)).fetch_or(bits, order);
}
// Leaves only `bits` set and returns the word before.
inline uint32_t FetchAndGuestWord(std::byte* guest_word, uint32_t bits, std::memory_order order) {
  const GuestAccessGuard guard(guest_word, sizeof(uint32_t));
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(guest_word)).fetch_and(bits, order);
}

// The other side of a word is another program on another processor.
static_assert(std::atomic_ref<uint32_t>::is_always_lock_free);
static_assert(std::atomic<uintptr_t>::is_always_lock_free);

}  // namespace vmbfs::hyperv
