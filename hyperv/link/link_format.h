// The bytes of the link between a VMM and vmbfsd, and nothing else.
//
// Frozen: README.md has the same in words, the layouts of reserved messages,
// and the rules of use; link_channel_format.h has the channel level's messages.
// All integers are little-endian, all structures packed.

#pragma once

#include <boost/endian/buffers.hpp>
#include <cstddef>
#include <cstdint>

namespace vmbfs::hyperv {

using LinkU8 = boost::endian::little_uint8_buf_t;
using LinkU16 = boost::endian::little_uint16_buf_t;
using LinkU32 = boost::endian::little_uint32_buf_t;
using LinkU64 = boost::endian::little_uint64_buf_t;

inline constexpr uint16_t kLinkMajor = 1;
inline constexpr uint16_t kLinkMinor = 1;

// High 16 bits of every type: a stranger on the socket is noticed at once.
inline constexpr uint32_t kLinkMagic = 0x564C;

inline constexpr size_t kLinkHeaderBytes = 24;
inline constexpr size_t kLinkFrameBytesMax = 4096;  // header and payload
inline constexpr size_t kLinkPayloadBytesMax = kLinkFrameBytesMax - kLinkHeaderBytes;
inline constexpr size_t kLinkDescriptorsMax = 4;  // in one frame

inline constexpr uint32_t kLinkPostsMax = 16;  // not yet acknowledged
inline constexpr uint32_t kLinkVpsMax = 4096;
inline constexpr uint32_t kLinkSints = 16;  // of each VP
inline constexpr size_t kLinkLabelBytesMax = 128;
inline constexpr size_t kLinkErrorTextBytesMax = 1024;
inline constexpr size_t kSynicPayloadBytesMax = 240;
inline constexpr uint32_t kSynicEventFlags = 2048;  // of each SINT
inline constexpr uint32_t kSynicVmbusMessageType = 1;
inline constexpr uint32_t kSynicVmbusSint = 2;

enum class LinkType : uint32_t {
  // Both levels; the VMM sends them unless noted.
  kHello = 0x564C0001,
  kMemAdd = 0x564C0002,
  kMemDel = 0x564C0003,
  kStart = 0x564C0004,
  kPause = 0x564C0005,
  kResume = 0x564C0006,
  kReset = 0x564C0007,
  kSave = 0x564C0008,       // reserved
  kLoad = 0x564C0009,       // reserved
  kState = 0x564C000A,      // reserved
  kStateKeep = 0x564C000B,  // reserved; the server sends it

  // SynIC level, VMM to server.
  kSynic = 0x564C0020,
  kPost = 0x564C0021,
  kSignal = 0x564C0022,
  kEom = 0x564C0023,
  kConn = 0x564C0024,  // reserved
  kSint = 0x564C0025,  // reserved

  // SynIC level, server to VMM.
  kSintGet = 0x564C0030,
  kConnSet = 0x564C0031,
  kConnClr = 0x564C0032,
  kPostAck = 0x564C0033,
  kMsgSend = 0x564C0034,   // MEDIATED delivery
  kEventGet = 0x564C0035,  // MEDIATED delivery
  kMonSet = 0x564C0036,    // reserved

  // Channel level, server to VMM.
  kOffer = 0x564C0040,
  kRevoke = 0x564C0041,
  kRequestReset = 0x564C0042,  // reserved
  kLog = 0x564C0043,           // reserved

  // Channel level, VMM to server.
  kGpadlAdd = 0x564C0050,
  kGpadlDel = 0x564C0051,
  kOpen = 0x564C0052,
  kModify = 0x564C0053,
  kClose = 0x564C0054,
  kRelease = 0x564C0055,
};

inline constexpr uint16_t kLinkFlagReply = 1;
inline constexpr uint16_t kLinkFlagNeedAck = 2;
inline constexpr uint16_t kLinkFlagError = 4;  // only together with REPLY
inline constexpr uint16_t kLinkFlagsKnown = 7;

// HELLO: levels and delivery modes.
inline constexpr uint32_t kLinkLevelSynic = 1;
inline constexpr uint32_t kLinkLevelChannel = 2;
inline constexpr uint32_t kLinkDeliveryDirect = 1;
inline constexpr uint32_t kLinkDeliveryMediated = 2;

// The reply of MSG_SEND.
enum class LinkMsgResult : uint32_t {
  kDelivered = 0,
  kBusy = 1,           // the slot is full; EOM follows when it was emptied
  kNoMessagePage = 2,  // the SynIC, its message page or the SINT is off; SYNIC follows
};

// MEM_ADD: flags, both reserved; a region with any flag set is refused.
inline constexpr uint32_t kLinkMemReadOnly = 1;
inline constexpr uint32_t kLinkMemOverlay = 2;

// Codes of an ERROR reply.
enum class LinkError : uint32_t {
  kProtocol = 1,      // the rules were broken; the connection ends
  kNotSupported = 2,  // a known message that the receiver does not implement
  kRefused = 3,       // legal, but not done; the text says why
  kBusy = 4,          // another connection lives; this one ends
  kNotPermitted = 5,  // the peer's user may not use this link; it ends
};

struct LinkHeaderWire {
  LinkU32 type;
  LinkU16 flags;
  LinkU16 nfds;
  LinkU32 length;  // of the payload
  LinkU32 reserved;
  LinkU64 seq;
};
static_assert(sizeof(LinkHeaderWire) == kLinkHeaderBytes && alignof(LinkHeaderWire) == 1);
static_assert(offsetof(LinkHeaderWire, type) == 0 && offsetof(LinkHeaderWire, flags) == 4);
static_assert(offsetof(LinkHeaderWire, nfds) == 6 && offsetof(LinkHeaderWire, length) == 8);
static_assert(offsetof(LinkHeaderWire, reserved) == 12 && offsetof(LinkHeaderWire, seq) == 16);

// Payload of every ERROR reply; the text follows.
struct LinkErrorWire {
  LinkU32 code;
  LinkU32 text_length;
};
static_assert(sizeof(LinkErrorWire) == 8 && alignof(LinkErrorWire) == 1);
static_assert(offsetof(LinkErrorWire, code) == 0 && offsetof(LinkErrorWire, text_length) == 4);

// HELLO; the label follows.
struct LinkHelloWire {
  LinkU16 major;
  LinkU16 minor;
  LinkU32 level;
  LinkU64 features;
  LinkU8 vm_uuid[16];
  LinkU32 vp_count;
  LinkU32 delivery_modes;
  LinkU32 label_length;
};
static_assert(sizeof(LinkHelloWire) == 44 && alignof(LinkHelloWire) == 1);
static_assert(offsetof(LinkHelloWire, major) == 0 && offsetof(LinkHelloWire, minor) == 2);
static_assert(offsetof(LinkHelloWire, level) == 4 && offsetof(LinkHelloWire, features) == 8);
static_assert(offsetof(LinkHelloWire, vm_uuid) == 16 && offsetof(LinkHelloWire, vp_count) == 32);
static_assert(offsetof(LinkHelloWire, delivery_modes) == 36);
static_assert(offsetof(LinkHelloWire, label_length) == 40);

// HELLO_OK, the reply of HELLO.
struct LinkHelloOkWire {
  LinkU16 major;
  LinkU16 minor;  // the lower of both sides
  LinkU32 level;
  LinkU64 features;  // asked for and known
  LinkU32 delivery_mode;
  LinkU32 reserved;
};
static_assert(sizeof(LinkHelloOkWire) == 24 && alignof(LinkHelloOkWire) == 1);
static_assert(offsetof(LinkHelloOkWire, major) == 0 && offsetof(LinkHelloOkWire, minor) == 2);
static_assert(offsetof(LinkHelloOkWire, level) == 4 && offsetof(LinkHelloOkWire, features) == 8);
static_assert(offsetof(LinkHelloOkWire, delivery_mode) == 16);
static_assert(offsetof(LinkHelloOkWire, reserved) == 20);

struct LinkMemAddWire {
  LinkU32 id;
  LinkU32 flags;
  LinkU64 gpa;
  LinkU64 bytes;
  LinkU64 file_offset;
};
static_assert(sizeof(LinkMemAddWire) == 32 && alignof(LinkMemAddWire) == 1);
static_assert(offsetof(LinkMemAddWire, id) == 0 && offsetof(LinkMemAddWire, flags) == 4);
static_assert(offsetof(LinkMemAddWire, gpa) == 8 && offsetof(LinkMemAddWire, bytes) == 16);
static_assert(offsetof(LinkMemAddWire, file_offset) == 24);

struct LinkMemDelWire {
  LinkU32 id;
  LinkU32 reserved;
};
static_assert(sizeof(LinkMemDelWire) == 8 && alignof(LinkMemDelWire) == 1);
static_assert(offsetof(LinkMemDelWire, id) == 0 && offsetof(LinkMemDelWire, reserved) == 4);

struct LinkResetWire {
  LinkU32 reason;
  LinkU32 reserved;
};
static_assert(sizeof(LinkResetWire) == 8 && alignof(LinkResetWire) == 1);
static_assert(offsetof(LinkResetWire, reason) == 0 && offsetof(LinkResetWire, reserved) == 4);

struct LinkSynicWire {
  LinkU32 vp;
  LinkU32 reserved;
  LinkU64 scontrol;
  LinkU64 siefp;
  LinkU64 simp;
  LinkU64 sint2;
};
static_assert(sizeof(LinkSynicWire) == 40 && alignof(LinkSynicWire) == 1);
static_assert(offsetof(LinkSynicWire, vp) == 0 && offsetof(LinkSynicWire, reserved) == 4);
static_assert(offsetof(LinkSynicWire, scontrol) == 8 && offsetof(LinkSynicWire, siefp) == 16);
static_assert(offsetof(LinkSynicWire, simp) == 24 && offsetof(LinkSynicWire, sint2) == 32);

struct LinkPostWire {
  LinkU64 post_seq;
  LinkU32 vp;
  LinkU32 connection;
  LinkU32 type;
  LinkU32 size;
  LinkU8 payload[kSynicPayloadBytesMax];
};
static_assert(sizeof(LinkPostWire) == 264 && alignof(LinkPostWire) == 1);
static_assert(offsetof(LinkPostWire, post_seq) == 0 && offsetof(LinkPostWire, vp) == 8);
static_assert(offsetof(LinkPostWire, connection) == 12 && offsetof(LinkPostWire, type) == 16);
static_assert(offsetof(LinkPostWire, size) == 20 && offsetof(LinkPostWire, payload) == 24);

struct LinkSignalWire {
  LinkU32 connection;
  LinkU16 flag;
  LinkU16 reserved;
};
static_assert(sizeof(LinkSignalWire) == 8 && alignof(LinkSignalWire) == 1);
static_assert(offsetof(LinkSignalWire, connection) == 0 && offsetof(LinkSignalWire, flag) == 4);
static_assert(offsetof(LinkSignalWire, reserved) == 6);

// EOM, SINT and SINT_GET.
struct LinkSintWire {
  LinkU32 vp;
  LinkU32 sint;
};
static_assert(sizeof(LinkSintWire) == 8 && alignof(LinkSintWire) == 1);
static_assert(offsetof(LinkSintWire, vp) == 0 && offsetof(LinkSintWire, sint) == 4);

// CONN, CONN_SET and CONN_CLR.
struct LinkConnWire {
  LinkU32 connection;
  LinkU32 reserved;
};
static_assert(sizeof(LinkConnWire) == 8 && alignof(LinkConnWire) == 1);
static_assert(offsetof(LinkConnWire, connection) == 0 && offsetof(LinkConnWire, reserved) == 4);

struct LinkPostAckWire {
  LinkU64 post_seq;
};
static_assert(sizeof(LinkPostAckWire) == 8 && alignof(LinkPostAckWire) == 1);
static_assert(offsetof(LinkPostAckWire, post_seq) == 0);

struct LinkMsgSendWire {
  LinkU64 out_seq;
  LinkU32 vp;
  LinkU32 sint;
  LinkU32 type;
  LinkU32 size;
  LinkU8 payload[kSynicPayloadBytesMax];
};
static_assert(sizeof(LinkMsgSendWire) == 264 && alignof(LinkMsgSendWire) == 1);
static_assert(offsetof(LinkMsgSendWire, out_seq) == 0 && offsetof(LinkMsgSendWire, vp) == 8);
static_assert(offsetof(LinkMsgSendWire, sint) == 12 && offsetof(LinkMsgSendWire, type) == 16);
static_assert(offsetof(LinkMsgSendWire, size) == 20 && offsetof(LinkMsgSendWire, payload) == 24);

// The reply of MSG_SEND; `result` is a LinkMsgResult.
struct LinkMsgSendResultWire {
  LinkU32 result;
  LinkU32 reserved;
};
static_assert(sizeof(LinkMsgSendResultWire) == 8 && alignof(LinkMsgSendResultWire) == 1);
static_assert(offsetof(LinkMsgSendResultWire, result) == 0);
static_assert(offsetof(LinkMsgSendResultWire, reserved) == 4);

struct LinkEventGetWire {
  LinkU32 vp;
  LinkU32 sint;
  LinkU32 flag;
  LinkU32 reserved;
};
static_assert(sizeof(LinkEventGetWire) == 16 && alignof(LinkEventGetWire) == 1);
static_assert(offsetof(LinkEventGetWire, vp) == 0 && offsetof(LinkEventGetWire, sint) == 4);
static_assert(offsetof(LinkEventGetWire, flag) == 8 && offsetof(LinkEventGetWire, reserved) == 12);

}  // namespace vmbfs::hyperv
