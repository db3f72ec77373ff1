#include "hyperv/guest_memory/mapping_budget.h"

#include <fstream>

namespace vmbfs::hyperv {
namespace {

constexpr size_t kKernelMaxByDefault = 65'530;

size_t KernelMax() {
  size_t kernel_max = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> kernel_max;
  return kernel_max == 0 ? kKernelMaxByDefault : kernel_max;
}

}  // namespace

MappingBudget& MappingBudget::OfProcess() {
  static MappingBudget budget(KernelMax() / 2);
  return budget;
}

MappingBudget& MappingBudget::OfRings() {
  static MappingBudget budget(KernelMax() / 8);
  return budget;
}

std::optional<MappingBudget::Share> MappingBudget::Take() {
  size_t used = used_.load(std::memory_order_relaxed);
  while (used < max_) {
    if (used_.compare_exchange_weak(used, used + 1, std::memory_order_relaxed)) return Share(this);
  }
  return std::nullopt;
}

}  // namespace vmbfs::hyperv
