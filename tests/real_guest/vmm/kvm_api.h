// <linux/kvm.h> as C++ can use it.
//
// Headers of Linux 6.1 declare flexible arrays with an empty structure before
// them, which has a size in C++: the structures would be wrong, and with them
// the numbers of the ioctls.

#pragma once

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]
#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8);
static_assert(sizeof(kvm_msrs) == 8);
static_assert(sizeof(kvm_irq_routing) == 8);
