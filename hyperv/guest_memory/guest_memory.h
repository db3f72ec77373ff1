// A VM's RAM, as its VMM hands it over: regions of sealed memfds.
//
// Trust: the descriptors and numbers come from the VMM and are checked here
// once; what the memory holds is the guest's and may change at any moment, or
// vanish (guest_access.h).
// Rules: ../../hyperv/link/README.md, MEM_ADD and MEM_DEL;
// shared/specs/vmm-link.md section 1.6.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/double_mapping.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/mapping_budget.h"

namespace vmbfs::hyperv {

inline constexpr uint64_t kPageBytes = 4096;

// One region's pages in our address space, unmapped with the last holder.
class MappedRegion;

// A run of guest pages that lie side by side in our address space.
// The holder keeps the mapping alive, so a run never dangles.
struct GuestRun {
  std::shared_ptr<const MappedRegion> region;
  std::byte* data = nullptr;
  size_t bytes = 0;
};

struct MemoryRegionDescription {
  uint32_t id = 0;
  uint64_t gpa = 0;          // page-aligned
  uint64_t bytes = 0;        // page-aligned, not 0
  uint64_t file_offset = 0;  // page-aligned
};

struct GuestMemoryOptions {
  // Takes files that are not sealed against shrinking too. Their VMM can make
  // memory vanish at any moment, which costs the channels that touch it then.
  bool allow_unsealed = false;
  // What all VMs share.
  MappingBudget& budget = MappingBudget::OfProcess();
  MappingBudget& ring_budget = MappingBudget::OfRings();
};

// The regions of one VM.
//
// Thread safety: one strand (the VM's). A GuestRun may outlive the region's
// removal; its bytes are then nobody's, and harmless.
// Bounds: kRegionsMax regions, kTotalBytesMax in all, and a share of the budget for
// each mapping, until its last GuestRun is gone.
class GuestMemory {
 public:
  static constexpr size_t kRegionsMax = 256;
  static constexpr uint64_t kTotalBytesMax = uint64_t{1} << 44;  // 16 TiB
  static constexpr uint64_t kGpaLimit = uint64_t{1} << 52;

  explicit GuestMemory(GuestMemoryOptions options = {});
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // Checks `fd` and maps the range; takes the descriptor in any case. Before
  // anything else is asked of it, its seals are: a file that has any is in
  // memory (a memfd, tmpfs, hugetlbfs), and no file system of somebody's own
  // that may let us wait.
  //
  // Errors (nothing was added; the message names the rule that was broken):
  //   kInvalidArgument    not a file in memory, not sealed against shrinking,
  //                       smaller than offset + size, not page-aligned,
  //                       overlaps another region, id in use.
  //   kResourceExhausted  more regions or bytes than the bounds allow, or more
  //                       mappings of all VMs than the budget does.
  absl::Status AddRegion(const MemoryRegionDescription& description, UniqueFd fd);

  // Takes a region out; later look-ups in it fail. kNotFound for an unknown id.
  absl::Status RemoveRegion(uint32_t id);

  // The pages `page_frames` (guest physical address >> 12) as runs, in order;
  // neighbours in our address space are merged into one run.
  //
  // Errors: kInvalidArgument when a page lies in no region, with its number;
  // kFailedPrecondition when memory of its region vanished.
  absl::StatusOr<std::vector<GuestRun>> MapPages(std::span<const uint64_t> page_frames) const;

  // The pages side by side in their order, mapped twice in a row.
  //
  // Errors: as MapPages; as DoubleMapping::Make: use the runs of MapPages then.
  absl::StatusOr<std::shared_ptr<const DoubleMapping>> MapTwice(
      std::span<const uint64_t> page_frames) const;

  // `bytes` at `gpa`, when they lie within one region. For structures that
  // the VMM names by address (SIMP, SIEFP). Errors: as above.
  absl::StatusOr<GuestRun> MapRange(uint64_t gpa, uint64_t bytes) const;

  // OK when every one of `page_frames` lies in a region. Errors: as MapPages.
  absl::Status CheckPages(std::span<const uint64_t> page_frames) const;

  // Writes to `pieces` where the `byte_count` bytes lie in our address space that
  // begin `byte_offset` bytes into the first of `page_frames`: in order, and
  // neighbours merged. Returns how many pieces there are. Does not allocate.
  // Nothing keeps the pages mapped: use the pieces up before a region may go.
  // REQUIRES: the bytes lie within the pages; room for a piece a page.
  //
  // Errors: as MapPages.
  absl::StatusOr<size_t> Pieces(std::span<const uint64_t> page_frames, uint64_t byte_offset,
                                uint64_t byte_count, std::span<iovec> pieces) const;

  // Whether any of `page_frames` lies in region `id`.
  bool RegionHoldsAny(uint32_t id, std::span<const uint64_t> page_frames) const;

  // OK when all accesses during `watch` met their memory. If not, the regions that
  // were touched are given out no more until they are removed and added again: what
  // we see in the vanished pages from then on is not what the guest sees.
  //
  // Errors: kFailedPrecondition with an address: what was read are zeros, and
  // what was written is lost. Fault the channel.
  absl::Status CheckVanished(const VanishedMemoryWatch& watch) const;

  size_t region_count() const { return by_gpa_.size(); }
  uint64_t total_bytes() const { return total_bytes_; }

 private:
  struct Region;
  absl::StatusOr<Region*> Find(uint64_t gpa) const;
  absl::StatusOr<Region*> FindPage(uint64_t page_frame) const;
  static std::byte* PageOf(const Region& region, uint64_t page_frame);

  const GuestMemoryOptions options_;
  std::map<uint64_t, std::unique_ptr<Region>> by_gpa_;
  uint64_t total_bytes_ = 0;
};

}  // namespace vmbfs::hyperv
