// The two deliveries of the SynIC level, with the frames by which each asks the
// VMM for what it needs: SINT_GET for DIRECT, MSG_SEND and EVENT_GET for
// MEDIATED.

#pragma once

#include <functional>
#include <memory>

#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_exchange.h"
#include "hyperv/link/synic.h"

namespace vmbfs::hyperv {

// `on_end_of_message` is called after an acknowledge eventfd told of one.
// All arguments must outlive the result, or the exchange be closed before.
std::unique_ptr<Synic> CreateDirectSynic(LinkExchange& exchange, const GuestMemory& memory,
                                         std::function<void()> on_end_of_message);
std::unique_ptr<Synic> CreateMediatedSynic(LinkExchange& exchange);

}  // namespace vmbfs::hyperv
