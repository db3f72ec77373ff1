#include "hyperv/link/link_codec.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "hyperv/link/link_payload.h"

namespace vmbfs::hyperv {
namespace {

constexpr auto kNone = LinkTypeLevel::kReserved;
constexpr auto kBoth = LinkTypeLevel::kBoth;
constexpr auto kSynic = LinkTypeLevel::kSynic;
constexpr auto kChannel = LinkTypeLevel::kChannel;

// type, name, from VMM, level, (r), descriptors, descriptors of the reply, its payload.
constexpr LinkTypeRule kRules[] = {
    {LinkType::kHello, "HELLO", true, kBoth, true, 0, 0, 0, 0, 0},
    {LinkType::kMemAdd, "MEM_ADD", true, kBoth, false, 1, 1, 0, 0, 0},
    {LinkType::kMemDel, "MEM_DEL", true, kBoth, true, 0, 0, 0, 0, 0},
    {LinkType::kStart, "START", true, kBoth, false, 0, 0, 0, 0, 0},
    {LinkType::kPause, "PAUSE", true, kBoth, true, 0, 0, 0, 0, 0},
    {LinkType::kResume, "RESUME", true, kBoth, true, 0, 0, 0, 0, 0},
    {LinkType::kReset, "RESET", true, kBoth, true, 0, 0, 0, 0, 0},
    {LinkType::kSave, "SAVE", true, kNone, true, 1, 1, 0, 0, 0},
    {LinkType::kLoad, "LOAD", true, kNone, true, 1, 1, 0, 0, 0},
    {LinkType::kState, "STATE", true, kNone, false, 1, 1, 0, 0, 0},
    {LinkType::kStateKeep, "STATE_KEEP", false, kNone, false, 1, 1, 0, 0, 0},
    {LinkType::kSynic, "SYNIC", true, kSynic, false, 0, 0, 0, 0, 0},
    {LinkType::kPost, "POST", true, kSynic, false, 0, 0, 0, 0, 0},
    {LinkType::kSignal, "SIGNAL", true, kSynic, false, 0, 0, 0, 0, 0},
    {LinkType::kEom, "EOM", true, kSynic, false, 0, 0, 0, 0, 0},
    {LinkType::kConn, "CONN", true, kNone, false, 1, 1, 0, 0, 0},
    {LinkType::kSint, "SINT", true, kNone, false, 1, 2, 0, 0, 0},
    {LinkType::kSintGet, "SINT_GET", false, kSynic, true, 0, 0, 1, 2, 0},
    {LinkType::kConnSet, "CONN_SET", false, kSynic, true, 1, 1, 0, 0, 0},
    {LinkType::kConnClr, "CONN_CLR", false, kSynic, true, 0, 0, 0, 0, 0},
    {LinkType::kPostAck, "POST_ACK", false, kSynic, false, 0, 0, 0, 0, 0},
    {LinkType::kMsgSend, "MSG_SEND", false, kSynic, true, 0, 0, 0, 0, 8},
    {LinkType::kEventGet, "EVENT_GET", false, kSynic, true, 0, 0, 1, 1, 0},
    {LinkType::kMonSet, "MON_SET", false, kNone, false, 0, 0, 0, 0, 0},
    {LinkType::kOffer, "OFFER", false, kChannel, true, 0, 0, 0, 0, 16},
    {LinkType::kRevoke, "REVOKE", false, kChannel, true, 0, 0, 0, 0, 0},
    {LinkType::kRequestReset, "REQUEST_RESET", false, kNone, false, 0, 0, 0, 0, 0},
    {LinkType::kLog, "LOG", false, kNone, false, 0, 0, 0, 0, 0},
    {LinkType::kGpadlAdd, "GPADL_ADD", true, kChannel, true, 0, 1, 0, 0, 0},
    {LinkType::kGpadlDel, "GPADL_DEL", true, kChannel, true, 0, 0, 0, 0, 0},
    {LinkType::kOpen, "OPEN", true, kChannel, true, 2, 3, 0, 0, 0},
    {LinkType::kModify, "MODIFY", true, kChannel, true, 1, 2, 0, 0, 0},
    {LinkType::kClose, "CLOSE", true, kChannel, true, 0, 0, 0, 0, 0},
    {LinkType::kRelease, "RELEASE", true, kChannel, false, 0, 0, 0, 0, 0},
};

}  // namespace

const LinkTypeRule* FindLinkType(uint32_t type) {
  for (const LinkTypeRule& rule : kRules) {
    if (static_cast<uint32_t>(rule.type) == type) return &rule;
  }
  return nullptr;
}

absl::StatusOr<LinkHeader> ParseLinkHeader(std::span<const std::byte, kLinkHeaderBytes> bytes) {
  LinkHeaderWire wire;
  std::memcpy(&wire, bytes.data(), sizeof(wire));
  const uint32_t type = wire.type.value();
  if (type >> 16 != kLinkMagic) {
    return BrokenPayload("frame type 0x", absl::Hex(type), " does not begin with 0x564c");
  }
  LinkHeader header;
  header.rule = FindLinkType(type);
  if (header.rule == nullptr) return BrokenPayload("frame type 0x", absl::Hex(type), " is unknown");
  const LinkTypeRule& rule = *header.rule;
  const uint16_t flags = wire.flags.value();
  header.reply = (flags & kLinkFlagReply) != 0;
  header.need_ack = (flags & kLinkFlagNeedAck) != 0;
  header.error = (flags & kLinkFlagError) != 0;
  header.descriptor_count = wire.nfds.value();
  header.payload_bytes = wire.length.value();
  header.seq = wire.seq.value();
  if ((flags & ~kLinkFlagsKnown) != 0 || (header.reply && header.need_ack) ||
      (header.error && !header.reply)) {
    return BrokenPayload(rule.name, ": flags 0x", absl::Hex(flags), " are not legal");
  }
  if (wire.reserved.value() != 0) return ReservedNotZero(rule.name);
  if (header.payload_bytes > kLinkPayloadBytesMax) {
    return BrokenPayload(rule.name, " payload of ", header.payload_bytes, " bytes; at most ",
                         kLinkPayloadBytesMax, " are allowed");
  }
  if (header.reply == rule.from_vmm) {
    return BrokenPayload(rule.name, header.reply ? " reply" : "", " is not for a VMM to send");
  }
  const uint16_t least = header.error   ? 0
                         : header.reply ? rule.reply_descriptors_min
                                        : rule.descriptors_min;
  const uint16_t most = header.error   ? 0
                        : header.reply ? rule.reply_descriptors_max
                                       : rule.descriptors_max;
  if (header.descriptor_count < least || header.descriptor_count > most) {
    return BrokenPayload(rule.name, " announces ", header.descriptor_count, " descriptors; it has ",
                         least, " to ", most);
  }
  return header;
}

absl::StatusOr<LinkHello> ParseHello(std::span<const std::byte> payload) {
  LinkHelloWire wire{};
  if (payload.size() < sizeof(wire)) {
    return BrokenPayload("HELLO payload is ", payload.size(), " bytes; at least ", sizeof(wire),
                         " are needed");
  }
  std::memcpy(&wire, payload.data(), sizeof(wire));
  if (wire.major.value() != kLinkMajor) {
    return BrokenPayload("HELLO: major version ", wire.major.value(), " is not spoken here; ",
                         kLinkMajor, " is");
  }
  const uint32_t label_bytes = wire.label_length.value();
  if (label_bytes > kLinkLabelBytesMax) {
    return BrokenPayload("HELLO: label of ", label_bytes, " bytes; at most ", kLinkLabelBytesMax,
                         " are allowed");
  }
  if (payload.size() - sizeof(wire) != label_bytes) {
    return BrokenPayload("HELLO: ", payload.size() - sizeof(wire),
                         " bytes behind a label length of ", label_bytes);
  }
  LinkHello hello;
  hello.vp_count = wire.vp_count.value();
  if (hello.vp_count == 0 || hello.vp_count > kLinkVpsMax) {
    return BrokenPayload("HELLO: ", hello.vp_count, " VPs; 1 to ", kLinkVpsMax, " are allowed");
  }
  hello.minor = wire.minor.value();
  hello.level = wire.level.value();
  hello.features = wire.features.value();
  std::memcpy(hello.vm_uuid.data(), wire.vm_uuid, hello.vm_uuid.size());
  hello.delivery_modes = wire.delivery_modes.value();
  hello.label.resize(label_bytes);
  std::memcpy(hello.label.data(), payload.data() + sizeof(wire), label_bytes);
  return hello;
}

absl::StatusOr<LinkMemAdd> ParseMemAdd(std::span<const std::byte> payload) {
  LinkMemAddWire wire{};
  if (absl::Status status = LoadPayload("MEM_ADD", payload, wire); !status.ok()) return status;
  return LinkMemAdd{.flags = wire.flags.value(),
                    .region = {.id = wire.id.value(),
                               .gpa = wire.gpa.value(),
                               .bytes = wire.bytes.value(),
                               .file_offset = wire.file_offset.value()}};
}

absl::StatusOr<uint32_t> ParseMemDel(std::span<const std::byte> payload) {
  LinkMemDelWire wire{};
  if (absl::Status status = LoadPayload("MEM_DEL", payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero("MEM_DEL");
  return wire.id.value();
}

absl::StatusOr<LinkSynic> ParseSynic(std::span<const std::byte> payload) {
  LinkSynicWire wire{};
  if (absl::Status status = LoadPayload("SYNIC", payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero("SYNIC");
  return LinkSynic{.vp = wire.vp.value(),
                   .scontrol = wire.scontrol.value(),
                   .siefp = wire.siefp.value(),
                   .simp = wire.simp.value(),
                   .sint2 = wire.sint2.value()};
}

absl::StatusOr<LinkPost> ParsePost(std::span<const std::byte> payload) {
  LinkPostWire wire{};
  if (absl::Status status = LoadPayload("POST", payload, wire); !status.ok()) return status;
  LinkPost post;
  post.post_seq = wire.post_seq.value();
  post.vp = wire.vp.value();
  post.connection = wire.connection.value();
  post.type = wire.type.value();
  post.size = wire.size.value();
  std::memcpy(post.payload.data(), wire.payload, post.payload.size());
  return post;
}

absl::StatusOr<LinkSignal> ParseSignal(std::span<const std::byte> payload) {
  LinkSignalWire wire{};
  if (absl::Status status = LoadPayload("SIGNAL", payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero("SIGNAL");
  return LinkSignal{.connection = wire.connection.value(), .flag = wire.flag.value()};
}

absl::StatusOr<LinkSint> ParseEom(std::span<const std::byte> payload) {
  LinkSintWire wire{};
  if (absl::Status status = LoadPayload("EOM", payload, wire); !status.ok()) return status;
  if (wire.sint.value() >= kLinkSints) return BrokenPayload("EOM: SINT ", wire.sint.value());
  return LinkSint{.vp = wire.vp.value(), .sint = static_cast<uint8_t>(wire.sint.value())};
}

absl::StatusOr<uint32_t> ParseReset(std::span<const std::byte> payload) {
  LinkResetWire wire{};
  if (absl::Status status = LoadPayload("RESET", payload, wire); !status.ok()) return status;
  if (wire.reserved.value() != 0) return ReservedNotZero("RESET");
  return wire.reason.value();
}

absl::StatusOr<LinkMsgResult> ParseMsgSendResult(std::span<const std::byte> payload) {
  LinkMsgSendResultWire wire{};
  if (absl::Status status = LoadPayload("MSG_SEND reply", payload, wire); !status.ok()) {
    return status;
  }
  if (wire.reserved.value() != 0) return ReservedNotZero("MSG_SEND reply");
  const uint32_t result = wire.result.value();
  if (result > static_cast<uint32_t>(LinkMsgResult::kNoMessagePage)) {
    return BrokenPayload("MSG_SEND reply: result ", result);
  }
  return static_cast<LinkMsgResult>(result);
}

absl::Status ParseEmpty(std::span<const std::byte> payload) {
  if (payload.empty()) return absl::OkStatus();
  return BrokenPayload("payload of ", payload.size(), " bytes where none belongs");
}

absl::Status ParseErrorReply(std::span<const std::byte> payload) {
  LinkErrorWire wire{};
  if (payload.size() < sizeof(wire)) {
    return BrokenPayload("ERROR payload is ", payload.size(), " bytes; at least ", sizeof(wire),
                         " are needed");
  }
  std::memcpy(&wire, payload.data(), sizeof(wire));
  const uint32_t text_bytes = wire.text_length.value();
  if (text_bytes > kLinkErrorTextBytesMax || payload.size() - sizeof(wire) != text_bytes) {
    return BrokenPayload("ERROR: text length ", text_bytes, " in a payload of ", payload.size(),
                         " bytes");
  }
  const std::string text(reinterpret_cast<const char*>(payload.data()) + sizeof(wire), text_bytes);
  return absl::FailedPreconditionError(
      absl::StrCat("the VMM refused (code ", wire.code.value(), "): ", absl::CHexEscape(text)));
}

std::vector<std::byte> BuildFrame(LinkType type, uint16_t flags, uint64_t seq, uint16_t descriptors,
                                  std::span<const std::byte> payload) {
  LinkHeaderWire header{};
  header.type = static_cast<uint32_t>(type);
  header.flags = flags;
  header.nfds = descriptors;
  header.length = static_cast<uint32_t>(payload.size());
  header.seq = seq;
  std::vector<std::byte> frame(sizeof(header) + payload.size());
  std::memcpy(frame.data(), &header, sizeof(header));
  std::copy(payload.begin(), payload.end(), frame.begin() + sizeof(header));
  return frame;
}

std::vector<std::byte> BuildReply(LinkType type, uint64_t seq) {
  return BuildFrame(type, kLinkFlagReply, seq, 0, {});
}

std::vector<std::byte> BuildError(LinkType type, uint64_t seq, LinkError code,
                                  std::string_view text) {
  text = text.substr(0, kLinkErrorTextBytesMax);
  LinkErrorWire wire{};
  wire.code = static_cast<uint32_t>(code);
  wire.text_length = static_cast<uint32_t>(text.size());
  std::vector<std::byte> payload(sizeof(wire) + text.size());
  std::memcpy(payload.data(), &wire, sizeof(wire));
  std::memcpy(payload.data() + sizeof(wire), text.data(), text.size());
  return BuildFrame(type, kLinkFlagReply | kLinkFlagError, seq, 0, payload);
}

std::vector<std::byte> BuildHelloOk(uint64_t seq, const LinkHelloOk& hello_ok) {
  LinkHelloOkWire wire{};
  wire.major = kLinkMajor;
  wire.minor = hello_ok.minor;
  wire.level = hello_ok.level;
  wire.features = 0;  // none exist yet: unknown ones are dropped
  wire.delivery_mode = hello_ok.delivery_mode;
  return BuildFrame(LinkType::kHello, kLinkFlagReply, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildSintGet(uint64_t seq, uint32_t vp, uint8_t sint) {
  LinkSintWire wire{};
  wire.vp = vp;
  wire.sint = sint;
  return BuildFrame(LinkType::kSintGet, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildConnSet(uint64_t seq, uint32_t connection) {
  LinkConnWire wire{};
  wire.connection = connection;
  return BuildFrame(LinkType::kConnSet, 0, seq, 1, PayloadOf(wire));
}

std::vector<std::byte> BuildConnClr(uint64_t seq, uint32_t connection) {
  LinkConnWire wire{};
  wire.connection = connection;
  return BuildFrame(LinkType::kConnClr, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildPostAck(uint64_t seq, uint64_t post_seq) {
  LinkPostAckWire wire{};
  wire.post_seq = post_seq;
  return BuildFrame(LinkType::kPostAck, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildMsgSend(uint64_t seq, uint64_t out_seq, uint32_t vp, uint8_t sint,
                                    std::span<const std::byte> message) {
  LinkMsgSendWire wire{};
  wire.out_seq = out_seq;
  wire.vp = vp;
  wire.sint = sint;
  wire.type = kSynicVmbusMessageType;
  wire.size = static_cast<uint32_t>(message.size());
  std::memcpy(wire.payload, message.data(), message.size());
  return BuildFrame(LinkType::kMsgSend, 0, seq, 0, PayloadOf(wire));
}

std::vector<std::byte> BuildEventGet(uint64_t seq, uint32_t vp, uint8_t sint, uint32_t flag) {
  LinkEventGetWire wire{};
  wire.vp = vp;
  wire.sint = sint;
  wire.flag = flag;
  return BuildFrame(LinkType::kEventGet, 0, seq, 0, PayloadOf(wire));
}

}  // namespace vmbfs::hyperv
