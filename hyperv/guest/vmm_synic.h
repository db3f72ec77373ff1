// The VMM's side of the guest's synthetic interrupt controllers, for forms of
// the link in which the VMM writes message slots and event flags itself.
//
// Rules: shared/specs/vmbus.md 1.1 to 1.3.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hyperv/guest/guest_ram.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

inline constexpr uint64_t kSynicEnabled = 1;  // in SCONTROL, SIEFP and SIMP
inline constexpr uint64_t kSintMasked = uint64_t{1} << 16;

// What a guest has written into the registers of one processor's controller; so they
// are after a reset.
struct SynicRegisters {
  uint64_t scontrol = 0;
  uint64_t siefp = 0;  // event flags page
  uint64_t simp = 0;   // message page
  uint64_t sint2 = kSintMasked;
  friend bool operator==(const SynicRegisters&, const SynicRegisters&) = default;
};

// Thread safety: the VMM's thread; the pages are shared with the guest.
// Ownership: refers to `ram`, which must outlive it.
class VmmSynic {
 public:
  VmmSynic(const GuestRam& ram, uint32_t vp_count) : ram_(ram), processors_(vp_count) {}

  uint32_t vp_count() const { return static_cast<uint32_t>(processors_.size()); }
  // A page that is off, masked, or no RAM, is none.
  // REQUIRES: vp < vp_count.
  void SetRegisters(uint32_t vp, const SynicRegisters& registers);

  // Fills a message slot. A full one is marked, so that the guest writes EOM
  // when it has emptied it. Processors and sources that do not exist have no
  // message page.
  // REQUIRES: at most kSynicPayloadBytesMax bytes.
  LinkMsgResult Deliver(uint32_t vp, uint32_t sint, uint32_t type,
                        std::span<const std::byte> payload);

  // Sets an event flag of VMBus' source; true when it was clear, and the
  // interrupt is to be raised. Does nothing where there is none.
  bool SetEventFlag(uint32_t vp, uint32_t flag);

 private:
  // Guest physical addresses; 0: there is none.
  struct Pages {
    uint64_t messages = 0;
    uint64_t event_flags = 0;
  };

  const GuestRam& ram_;
  std::vector<Pages> processors_;
};

}  // namespace vmbfs::hyperv
