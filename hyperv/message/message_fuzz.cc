// ParseGuestMessage and the builders against the tables of shared/specs/vmbus.md
// section 2, written once more by size and offset.
//
// Input: a byte that chooses what was negotiated, then the posted message.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/guid/guid.h"
#include "hyperv/message/message.h"
#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {
namespace {

// Features that a bus of ours may have agreed on: what the parser is asked with.
constexpr uint32_t kServedFeatures = 0x01 | 0x04 | 0x08 | 0x20;

constexpr std::array<uint32_t, 9> kVersions = {0x00020004, 0x00030000, 0x00040000,
                                               0x00040001, 0x00050000, 0x00050001,
                                               0x00050002, 0x00050003, 0x00060000};

struct Row {
  uint32_t type;
  size_t bytes_min;
  uint32_t version_min;  // 0: always
  uint32_t feature;
};
constexpr Row kRows[] = {{3, 8, 13, 0},
                         {5, 148, 13, 0},
                         {7, 12, 13, 0},
                         {8, 20, 13, 0},
                         {9, 16, 13, 0},
                         {11, 16, 13, 0},
                         {13, 12, 13, 0},
                         {14, 40, 0, 0},
                         {16, 8, 13, 0},
                         {18, 28, 0x00040000, 0},
                         {19, 20, 0, 0},
                         {21, 40, 0x00040000, 0},
                         {22, 16, 0x00040001, 0},
                         {25, 24, 0x00060000, 0x4},
                         {27, 8, 0x00060000, 0x20},
                         {29, 8, 0x00060000, 0x20}};

class Message {
 public:
  explicit Message(std::span<const std::byte> bytes) : bytes_(bytes) {}
  size_t size() const { return bytes_.size(); }
  uint64_t At(size_t offset, size_t size) const { return NumberAt(bytes_, offset, size); }
  uint32_t U32(size_t offset) const { return static_cast<uint32_t>(At(offset, 4)); }
  bool HasGuid(size_t offset, const Guid& guid) const {
    return std::ranges::equal(bytes_.subspan(offset, 16), guid.bytes);
  }

 private:
  std::span<const std::byte> bytes_;
};

bool Accepted(const Message& message, const std::optional<Protocol>& protocol) {
  if (message.size() < 8 || message.size() > 240) return false;
  const uint32_t type = message.U32(0);
  const Row* row = std::ranges::find(kRows, type, &Row::type);
  if (row == std::end(kRows) || message.size() < row->bytes_min) return false;
  if (type == 14) {
    // A client id that is announced must be there.
    const bool client_id = message.U32(8) >= 0x00060000 && (message.U32(20) & 8) != 0;
    return !client_id || message.size() >= 56;
  }
  if (row->version_min == 0) return true;
  if (!protocol || protocol->version < row->version_min) return false;
  if (type == 5 && (protocol->features & 3) != 0 && message.size() < 156) return false;
  return (protocol->features & row->feature) == row->feature;
}

// The fields of each request stand where the tables say.
struct FieldCheck {
  const Message& message;
  uint32_t features;

  void Type(uint32_t type) const { Require(message.U32(0) == type, "the type is the message's"); }
  void Words(const GpadlWords& words, size_t offset) const {
    Require(words.size() == (message.size() - offset) / 8, "all whole words behind the header");
    for (size_t i = 0; i < words.size(); ++i) {
      Require(words[i] == message.At(offset + 8 * i, 8), "range data");
    }
  }

  void MonitorPagesAt(size_t offset, const MonitorPages& pages) const {
    Require(pages.parent_to_child_gpa == message.At(offset, 8) &&
                pages.child_to_parent_gpa == message.At(offset + 8, 8),
            "monitor pages");
  }

  void operator()(const ContactRequest& request) const {
    Type(14);
    const uint32_t version = message.U32(8);
    Require(request.version == version, "version");
    Require(request.target_vp == (version >= 0x00030000 ? message.U32(12) : 0), "target VP");
    Require(request.target_sint == (version >= 0x00050000 ? message.At(16, 1) : 0), "SINT");
    Require(request.target_vtl == (version >= 0x00050001 ? message.At(17, 1) : 0), "VTL");
    Require(request.features == (version >= 0x00060000 ? message.U32(20) : 0), "features");
    MonitorPagesAt(24, request.monitor_pages);
    Require(request.client_id.has_value() == ((request.features & 8) != 0), "client id or none");
    if (request.client_id) Require(message.HasGuid(40, *request.client_id), "client id");
  }
  void operator()(const OffersRequest&) const { Type(3); }
  void operator()(const UnloadRequest&) const { Type(16); }
  void operator()(const OpenChannelRequest& request) const {
    Type(5);
    Require(request.channel_id == message.U32(8) && request.open_id == message.U32(12) &&
                request.ring_gpadl_id == message.U32(16) && request.target_vp == message.U32(20) &&
                request.downstream_page_offset == message.U32(24),
            "fields of OpenChannel");
    Require(request.guest_signals.has_value() == ((features & 1) != 0), "signals or none");
    if (request.guest_signals) {
      Require(request.guest_signals->connection_id == message.U32(148) &&
                  request.guest_signals->event_flag == message.At(152, 2),
              "the guest's signals");
    }
  }
  void operator()(const CloseChannelRequest& request) const {
    Type(7);
    Require(request.channel_id == message.U32(8), "channel id");
  }
  void operator()(const ReleaseChannelRequest& request) const {
    Type(13);
    Require(request.channel_id == message.U32(8), "channel id");
  }
  void operator()(const ModifyChannelRequest& request) const {
    Type(22);
    Require(request.channel_id == message.U32(8) && request.target_vp == message.U32(12),
            "fields of ModifyChannel");
  }
  void operator()(const GpadlHeaderRequest& request) const {
    Type(8);
    Require(request.channel_id == message.U32(8) && request.gpadl_id == message.U32(12) &&
                request.range_buffer_bytes == message.At(16, 2) &&
                request.range_count == message.At(18, 2),
            "fields of GpadlHeader");
    Words(request.words, 20);
  }
  void operator()(const GpadlBodyRequest& request) const {
    Type(9);
    Require(request.gpadl_id == message.U32(12), "GPADL id");
    Words(request.words, 16);
  }
  void operator()(const GpadlTeardownRequest& request) const {
    Type(11);
    Require(request.channel_id == message.U32(8) && request.gpadl_id == message.U32(12),
            "fields of GpadlTeardown");
  }
  void operator()(const OpenReservedChannelRequest& request) const {
    Type(18);
    Require(request.channel_id == message.U32(8) && request.target_vp == message.U32(12) &&
                request.target_sint == message.At(16, 1),
            "fields of OpenReservedChannel");
  }
  void operator()(const CloseReservedChannelRequest& request) const {
    Type(19);
    Require(request.channel_id == message.U32(8), "channel id");
  }
  void operator()(const SocketConnectRequest& request) const {
    Type(21);
    Require(message.HasGuid(8, request.endpoint_id) && message.HasGuid(24, request.service_id),
            "fields of TlConnectRequest");
  }
  void operator()(const ModifyConnectionRequest& request) const {
    Type(25);
    MonitorPagesAt(8, request.monitor_pages);
  }
  void operator()(const PauseRequest&) const { Type(27); }
  void operator()(const ResumeRequest&) const { Type(29); }
};

void CheckBuilt(const HostMessage& built, uint32_t type, std::initializer_list<uint32_t> words) {
  const Message message(built);
  Require(message.size() == 8 + 4 * words.size(), "exact size");
  Require(message.At(0, 8) == type, "type, and padding of zero");
  size_t offset = 8;
  for (const uint32_t word : words) {
    Require(message.U32(offset) == word, "a field of the answer");
    offset += 4;
  }
}

void CheckBuilders(uint32_t a, uint32_t b, uint32_t c, std::span<const std::byte> rest) {
  CheckBuilt(BuildRescindChannelOffer(a), 2, {a});
  CheckBuilt(BuildAllOffersDelivered(), 4, {});
  CheckBuilt(BuildOpenChannelResult(a, b, c), 6, {a, b, c});
  CheckBuilt(BuildGpadlCreated(a, b, c), 10, {a, b, c});
  CheckBuilt(BuildGpadlTorndown(a), 12, {a});
  CheckBuilt(BuildUnloadComplete(), 17, {});
  CheckBuilt(BuildModifyChannelResponse(a, b), 24, {a, b});
  CheckBuilt(BuildVersionUnsupported(), 15, {0, 0});
  CheckBuilt(BuildPauseResponse(), 28, {});
  const HostMessage modified = BuildModifyConnectionResponse(static_cast<uint8_t>(a));
  Require(modified.size() == 9 && Message(modified).At(0, 8) == 26 &&
              Message(modified).At(8, 1) == (a & 0xFF),
          "ModifyConnectionResponse has 9 bytes");
  for (const uint32_t version : kVersions) {
    const auto state = static_cast<uint8_t>(a % 3);
    const HostMessage response = BuildVersionResponse({version, b}, state);
    const uint32_t word = version < 0x00050000 ? version : 1;
    if (version < 0x00060000) {
      CheckBuilt(response, 15, {1u | uint32_t{state} << 8, word});
    } else {
      CheckBuilt(response, 15, {1u | uint32_t{state} << 8, word, b});
    }
  }

  OfferContents offer;
  offer.flags = static_cast<uint16_t>(b);
  offer.subchannel_index = static_cast<uint16_t>(c);
  offer.channel_id = a;
  offer.connection_id = a | 0x2000;
  if (b % 2 == 1) offer.monitor_id = static_cast<uint8_t>(c % 128);
  const uint32_t monitor = b % 2 == 1 ? 0x100 | c % 128 : 0xFF;
  std::copy_n(rest.begin(), std::min<size_t>(rest.size(), 120), offer.user_defined.begin());
  offer.instance_id.bytes[3] = std::byte{7};
  const HostMessage built = BuildOfferChannel(offer);
  const Message message(built);
  Require(message.size() == 196 && message.At(0, 8) == 1, "an offer has 196 bytes");
  Require(message.HasGuid(8, offer.interface_id) && message.HasGuid(24, offer.instance_id),
          "GUIDs");
  Require(message.At(56, 2) == offer.flags && message.At(180, 2) == offer.subchannel_index &&
              message.U32(184) == a && message.U32(188) == (0x00010000 | monitor) &&
              message.U32(192) == (a | 0x2000) && message.At(40, 8) == 0 && message.At(48, 8) == 0,
          "fields of an offer");
  Require(std::equal(built.begin() + 60, built.begin() + 180, offer.user_defined.begin()),
          "its user-defined area");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t choice = input.U8();
  std::optional<Protocol> protocol;
  if (choice % 10 < kVersions.size()) {
    protocol = Protocol{.version = kVersions[choice % 10], .features = 0};
    if (protocol->version == 0x00060000 && choice >= 128) protocol->features = kServedFeatures;
  }
  const std::span<const std::byte> bytes = input.Rest();
  const Message message(bytes);
  const auto request = ParseGuestMessage(bytes, protocol);
  Require(request.ok() == Accepted(message, protocol), "accepted as the tables say");
  if (request.ok()) {
    std::visit(FieldCheck{message, protocol ? protocol->features : 0}, *request);
  }
  if (bytes.size() >= 20) CheckBuilders(message.U32(8), message.U32(12), message.U32(16), bytes);
  return 0;
}

}  // namespace vmbfs::hyperv
