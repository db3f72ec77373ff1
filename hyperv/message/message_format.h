// Bytes of the VMBus channel messages, and nothing else: what both sides of the
// control plane put into a posted message or a message slot.
//
// Every structure begins with MessageHeader and is as long as its message; a
// type with a list behind it says so. Reserved and padding fields are zero on
// the wire and ignored when read. Source: shared/specs/vmbus.md section 2.

#pragma once

#include "hyperv/message/guest_message_format.h"
#include "hyperv/message/host_message_format.h"
#include "hyperv/message/message_header.h"
