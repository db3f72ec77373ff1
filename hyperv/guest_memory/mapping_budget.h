// How many pieces of guest memory the process maps.
//
// The kernel bounds the mappings of a process (vm.max_map_count), and all VMs
// share what it allows: beyond it nobody gets memory, nor can a page that
// vanished be replaced.

#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <utility>

namespace vmbfs::hyperv {

// Counts mappings against a maximum.
//
// Thread safety: any thread.
// Ownership: outlives its shares.
class MappingBudget {
 public:
  // One mapping, given back at its end.
  class Share {
   public:
    Share(Share&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)) {}
    Share& operator=(Share&&) = delete;
    ~Share() {
      if (budget_ != nullptr) budget_->used_.fetch_sub(1, std::memory_order_relaxed);
    }

   private:
    friend class MappingBudget;
    explicit Share(MappingBudget* budget) : budget_(budget) {}

    MappingBudget* budget_;
  };

  explicit MappingBudget(size_t max) : max_(max) {}
  MappingBudget(const MappingBudget&) = delete;
  MappingBudget& operator=(const MappingBudget&) = delete;

  // Half of what the kernel allowed when it was first asked for. The other half is
  // for rings, code, stacks and heap, and for pages that vanish: each that is
  // replaced may cut one mapping into three.
  static MappingBudget& OfProcess();

  // For rings that are mapped in a form of their own: an eighth. A ring that gets
  // none is used as it lies.
  static MappingBudget& OfRings();

  // nullopt when all are taken.
  std::optional<Share> Take();

  size_t used() const { return used_.load(std::memory_order_relaxed); }
  size_t max() const { return max_; }

 private:
  const size_t max_;
  std::atomic<size_t> used_ = 0;
};

}  // namespace vmbfs::hyperv
