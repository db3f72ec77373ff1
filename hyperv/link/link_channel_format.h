// The bytes of the link's channel level (HELLO level 2), and nothing else.
//
// Frozen: README.md has the same in words, and the rules of use.

#pragma once

#include <cstddef>
#include <cstdint>

#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

// GPADL_ADD: more page frames than this come in a memfd.
inline constexpr uint32_t kLinkInlinePageFramesMax = 400;

// OPEN: flags.
inline constexpr uint32_t kLinkOpenResume = 1;
inline constexpr uint32_t kLinkOpenDirectEvent = 2;

// GPADL_RESULT and OPEN_RESULT: what the guest is told.
inline constexpr uint32_t kLinkStatusSuccess = 0;
inline constexpr uint32_t kLinkStatusFailure = 0x8000FFFF;

struct LinkOfferWire {
  LinkU8 interface_id[16];  // GUIDs as VMBus has them
  LinkU8 instance_id[16];
  LinkU16 flags;  // of the channel, as in OfferChannel
  LinkU16 subchannel_index;
  LinkU32 mmio_megabytes;
  LinkU32 wants_monitor;  // 0 or 1
  LinkU32 reserved;
  LinkU8 user_defined[120];
};
static_assert(sizeof(LinkOfferWire) == 168 && alignof(LinkOfferWire) == 1);
static_assert(offsetof(LinkOfferWire, interface_id) == 0);
static_assert(offsetof(LinkOfferWire, instance_id) == 16 && offsetof(LinkOfferWire, flags) == 32);
static_assert(offsetof(LinkOfferWire, subchannel_index) == 34);
static_assert(offsetof(LinkOfferWire, mmio_megabytes) == 36);
static_assert(offsetof(LinkOfferWire, wants_monitor) == 40);
static_assert(offsetof(LinkOfferWire, reserved) == 44);
static_assert(offsetof(LinkOfferWire, user_defined) == 48);

// The reply of OFFER.
struct LinkOfferOkWire {
  LinkU32 channel;  // what both sides call it from now on
  LinkU32 relid;
  LinkU32 connection;
  LinkU32 reserved;
};
static_assert(sizeof(LinkOfferOkWire) == 16 && alignof(LinkOfferOkWire) == 1);
static_assert(offsetof(LinkOfferOkWire, channel) == 0 && offsetof(LinkOfferOkWire, relid) == 4);
static_assert(offsetof(LinkOfferOkWire, connection) == 8);
static_assert(offsetof(LinkOfferOkWire, reserved) == 12);

// REVOKE, CLOSE and RELEASE.
struct LinkChannelWire {
  LinkU32 channel;
  LinkU32 reserved;
};
static_assert(sizeof(LinkChannelWire) == 8 && alignof(LinkChannelWire) == 1);
static_assert(offsetof(LinkChannelWire, channel) == 0 && offsetof(LinkChannelWire, reserved) == 4);

// GPADL_ADD; up to kLinkInlinePageFramesMax u64 page frames follow, or a memfd
// has them from its first byte on.
struct LinkGpadlAddWire {
  LinkU32 channel;
  LinkU32 gpadl;
  LinkU32 range_count;
  LinkU32 pages;
};
static_assert(sizeof(LinkGpadlAddWire) == 16 && alignof(LinkGpadlAddWire) == 1);
static_assert(offsetof(LinkGpadlAddWire, channel) == 0 && offsetof(LinkGpadlAddWire, gpadl) == 4);
static_assert(offsetof(LinkGpadlAddWire, range_count) == 8);
static_assert(offsetof(LinkGpadlAddWire, pages) == 12);
static_assert(sizeof(LinkGpadlAddWire) + kLinkInlinePageFramesMax * 8 <= kLinkPayloadBytesMax);

struct LinkGpadlDelWire {
  LinkU32 channel;
  LinkU32 gpadl;
};
static_assert(sizeof(LinkGpadlDelWire) == 8 && alignof(LinkGpadlDelWire) == 1);
static_assert(offsetof(LinkGpadlDelWire, channel) == 0 && offsetof(LinkGpadlDelWire, gpadl) == 4);

struct LinkOpenWire {
  LinkU32 channel;
  LinkU32 open_id;
  LinkU32 ring_gpadl;
  LinkU32 downstream_page_offset;
  LinkU32 target_vp;
  LinkU32 flags;
  LinkU32 vmbus_version;
  LinkU32 feature_flags;
  LinkU8 user_defined[120];
  LinkU32 siefp_region;  // the last three with kLinkOpenDirectEvent only
  LinkU32 event_flag;
  LinkU64 siefp_offset;
};
static_assert(sizeof(LinkOpenWire) == 168 && alignof(LinkOpenWire) == 1);
static_assert(offsetof(LinkOpenWire, channel) == 0 && offsetof(LinkOpenWire, open_id) == 4);
static_assert(offsetof(LinkOpenWire, ring_gpadl) == 8);
static_assert(offsetof(LinkOpenWire, downstream_page_offset) == 12);
static_assert(offsetof(LinkOpenWire, target_vp) == 16 && offsetof(LinkOpenWire, flags) == 20);
static_assert(offsetof(LinkOpenWire, vmbus_version) == 24);
static_assert(offsetof(LinkOpenWire, feature_flags) == 28);
static_assert(offsetof(LinkOpenWire, user_defined) == 32);
static_assert(offsetof(LinkOpenWire, siefp_region) == 152);
static_assert(offsetof(LinkOpenWire, event_flag) == 156);
static_assert(offsetof(LinkOpenWire, siefp_offset) == 160);

// GPADL_RESULT and OPEN_RESULT, the replies of GPADL_ADD and OPEN.
struct LinkResultWire {
  LinkU32 status;
  LinkU32 reserved;
};
static_assert(sizeof(LinkResultWire) == 8 && alignof(LinkResultWire) == 1);
static_assert(offsetof(LinkResultWire, status) == 0 && offsetof(LinkResultWire, reserved) == 4);

struct LinkModifyWire {
  LinkU32 channel;
  LinkU32 target_vp;
};
static_assert(sizeof(LinkModifyWire) == 8 && alignof(LinkModifyWire) == 1);
static_assert(offsetof(LinkModifyWire, channel) == 0 && offsetof(LinkModifyWire, target_vp) == 4);

}  // namespace vmbfs::hyperv
