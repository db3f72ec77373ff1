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

// Guest physical addresses of one processor's SynIC pages; 0: there is none.
struct SynicPages {
  uint64_t message_page_gpa = 0;
  uint64_t event_flags_page_gpa = 0;
};

// Thread safety: the VMM's thread; the pages are shared with the guest.
// Ownership: refers to `ram`, which must outlive it.
class VmmSynic {
 public:
  // REQUIRES: the pages lie in `ram`.
  VmmSynic(const GuestRam& ram, std::span<const SynicPages> processors)
      : ram_(ram), processors_(processors.begin(), processors.end()) {}

  uint32_t vp_count() const { return static_cast<uint32_t>(processors_.size()); }
  void SetEnabled(bool enabled) { enabled_ = enabled; }
  // REQUIRES: vp < vp_count; the pages lie in `ram`.
  void SetPages(uint32_t vp, const SynicPages& pages) { processors_[vp] = pages; }

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
  const GuestRam& ram_;
  std::vector<SynicPages> processors_;
  bool enabled_ = false;
};

}  // namespace vmbfs::hyperv
