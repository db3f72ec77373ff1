#include "hyperv/ring/outgoing_ring.h"

#include "hyperv/ring/outgoing_ring_definitions.h"

namespace vmbfs::hyperv {

template class BasicOutgoingRing<RingMemory>;

}  // namespace vmbfs::hyperv
