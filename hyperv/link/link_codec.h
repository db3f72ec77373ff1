// Frames of the link as typed values: parsers for what the VMM sends, builders
// for what the server sends. No I/O. The channel level's are in
// link_channel_codec.h.
//
// Trust: every byte parsed here is the VMM's. A value that a parser returned
// holds the layout's rules (README.md) and needs no second check.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {

// Where a type is in use.
enum class LinkTypeLevel { kReserved, kBoth, kSynic, kChannel };

// What the README's tables say of one type.
struct LinkTypeRule {
  LinkType type{};
  const char* name = "";
  bool from_vmm = false;  // else only the server sends it
  LinkTypeLevel level{};
  bool always_answered = false;  // marked (r)
  uint16_t descriptors_min = 0;
  uint16_t descriptors_max = 0;
  uint16_t reply_descriptors_min = 0;
  uint16_t reply_descriptors_max = 0;
  uint32_t reply_payload_bytes = 0;  // of a reply that the VMM sends
};

// nullptr for a number that is not in the tables.
const LinkTypeRule* FindLinkType(uint32_t type);

struct LinkHeader {
  const LinkTypeRule* rule = nullptr;  // never nullptr in a parsed header
  bool reply = false;
  bool need_ack = false;
  bool error = false;
  uint16_t descriptor_count = 0;
  uint32_t payload_bytes = 0;
  uint64_t seq = 0;

  LinkType type() const { return rule->type; }
  // Whether the sender waits for a reply.
  bool wants_answer() const { return !reply && (need_ack || rule->always_answered); }
};

// One frame as it came in. `descriptors` are owned and close with it.
struct LinkFrame {
  LinkHeader header;
  std::vector<std::byte> payload;
  std::vector<UniqueFd> descriptors;
};

// A header that the VMM sent: known type, that a VMM may send (or a reply to a
// type that the server sends), legal flags, sizes and descriptor count.
//
// Errors: kInvalidArgument with the rule that was broken.
absl::StatusOr<LinkHeader> ParseLinkHeader(std::span<const std::byte, kLinkHeaderBytes> bytes);

struct LinkHello {
  uint16_t minor = 0;
  uint32_t level = 0;
  uint64_t features = 0;
  std::array<std::byte, 16> vm_uuid{};
  uint32_t vp_count = 0;  // 1 to kLinkVpsMax
  uint32_t delivery_modes = 0;
  std::string label;  // any bytes: escape it before it is shown
};

struct LinkMemAdd {
  uint32_t flags = 0;
  MemoryRegionDescription region;
};

struct LinkSynic {
  uint32_t vp = 0;
  uint64_t scontrol = 0;
  uint64_t siefp = 0;
  uint64_t simp = 0;
  uint64_t sint2 = 0;
};

struct LinkPost {
  uint64_t post_seq = 0;
  uint32_t vp = 0;
  uint32_t connection = 0;
  uint32_t type = 0;
  uint32_t size = 0;  // the guest's word: may be above kSynicPayloadBytesMax
  std::array<std::byte, kSynicPayloadBytesMax> payload{};
};

struct LinkSignal {
  uint32_t connection = 0;
  uint16_t flag = 0;
};

struct LinkSint {
  uint32_t vp = 0;
  uint8_t sint = 0;  // below kLinkSints
};

// Parsers of payloads. Errors: kInvalidArgument with the rule that was broken.
// Other majors than ours are refused by ParseHello; VPs are not compared with
// HELLO's number.
absl::StatusOr<LinkHello> ParseHello(std::span<const std::byte> payload);
absl::StatusOr<LinkMemAdd> ParseMemAdd(std::span<const std::byte> payload);
absl::StatusOr<uint32_t> ParseMemDel(std::span<const std::byte> payload);
absl::StatusOr<LinkSynic> ParseSynic(std::span<const std::byte> payload);
absl::StatusOr<LinkPost> ParsePost(std::span<const std::byte> payload);
absl::StatusOr<LinkSignal> ParseSignal(std::span<const std::byte> payload);
absl::StatusOr<LinkSint> ParseEom(std::span<const std::byte> payload);
absl::StatusOr<uint32_t> ParseReset(std::span<const std::byte> payload);
absl::StatusOr<LinkMsgResult> ParseMsgSendResult(std::span<const std::byte> payload);
absl::Status ParseEmpty(std::span<const std::byte> payload);

// The reason in an ERROR reply as a status, its text escaped. A malformed one
// gives kInvalidArgument, any other a kFailedPrecondition.
absl::Status ParseErrorReply(std::span<const std::byte> payload);

struct LinkHelloOk {
  uint16_t minor = 0;
  uint32_t level = 0;
  uint32_t delivery_mode = 0;  // 0 at the channel level
};

// Whole frames, ready to be sent.
std::vector<std::byte> BuildFrame(LinkType type, uint16_t flags, uint64_t seq, uint16_t descriptors,
                                  std::span<const std::byte> payload);
std::vector<std::byte> BuildReply(LinkType type, uint64_t seq);
std::vector<std::byte> BuildError(LinkType type, uint64_t seq, LinkError code,
                                  std::string_view text);
std::vector<std::byte> BuildHelloOk(uint64_t seq, const LinkHelloOk& hello_ok);
std::vector<std::byte> BuildSintGet(uint64_t seq, uint32_t vp, uint8_t sint);
std::vector<std::byte> BuildConnSet(uint64_t seq, uint32_t connection);  // rides with one fd
std::vector<std::byte> BuildConnClr(uint64_t seq, uint32_t connection);
std::vector<std::byte> BuildPostAck(uint64_t seq, uint64_t post_seq);
// REQUIRES: at most kSynicPayloadBytesMax bytes.
std::vector<std::byte> BuildMsgSend(uint64_t seq, uint64_t out_seq, uint32_t vp, uint8_t sint,
                                    std::span<const std::byte> message);
std::vector<std::byte> BuildEventGet(uint64_t seq, uint32_t vp, uint8_t sint, uint32_t flag);

}  // namespace vmbfs::hyperv
