#include "hyperv/ring/incoming_ring.h"

#include "hyperv/ring/incoming_ring_definitions.h"

namespace vmbfs::hyperv {

template class BasicIncomingRing<RingMemory>;

}  // namespace vmbfs::hyperv
