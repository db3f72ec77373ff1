// ParsePacket and the checks of extra headers against the rules of
// shared/specs/vmbus.md 4.2 and 4.4, written once more in plain numbers; and the
// packets we build against our own parser.
//
// Input: u32 available bytes, then the descriptor's 16 bytes and the extra
// header's 8.

#include <bit>
#include <cstddef>
#include <cstdint>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/packet/packet.h"

namespace vmbfs::hyperv {
namespace {

struct Fields {
  uint16_t type;
  uint16_t payload_offset_units;
  uint16_t length_units;
  uint16_t flags;
  uint64_t transaction_id;
};

bool Legal(const Fields& fields, uint64_t available_bytes) {
  const uint64_t header_units = fields.type == 7 || fields.type == 9 ? 3 : 2;
  const bool known = fields.type == 6 || fields.type == 7 || fields.type == 9 || fields.type == 0xB;
  return known && fields.flags <= 1 && fields.payload_offset_units >= header_units &&
         fields.length_units >= fields.payload_offset_units &&
         uint64_t{fields.length_units} * 8 + 8 <= available_bytes;
}

void CheckView(const PacketView& view, const Fields& fields) {
  Require(static_cast<uint16_t>(view.type) == fields.type, "the type is the descriptor's");
  Require(view.completion_requested == (fields.flags == 1), "so is the flag");
  Require(view.transaction_id == fields.transaction_id, "so is the transaction id");
  Require(view.payload_offset_bytes == fields.payload_offset_units * 8u, "payload offset");
  Require(view.payload_bytes == (fields.length_units - fields.payload_offset_units) * 8u,
          "payload bytes");
  Require(view.ring_bytes == fields.length_units * 8u + 8, "the trailer counts");
}

void CheckExtraHeader(const PacketView& view, uint64_t range_count) {
  const uint64_t space = view.payload_offset_bytes - 24;
  if (view.type == PacketType::kTransferPages) {
    TransferPagesHeader header{};
    header.range_count = static_cast<uint32_t>(range_count);
    Require(CheckTransferPages(view, header).ok() == (space == range_count * 8),
            "transfer-page ranges fill the space");
  } else if (view.type == PacketType::kGpaDirect) {
    GpaDirectHeader header{};
    header.range_count = static_cast<uint32_t>(range_count);
    Require(CheckGpaDirect(view, header).ok() == (range_count > 0 && range_count * 16 <= space),
            "GPA-direct ranges fit the space");
  }
}

void CheckBuilder(size_t payload_bytes, uint64_t transaction_id) {
  const size_t ring_bytes = 16 + (payload_bytes + 7) / 8 * 8 + 8;
  Require(InBandRingBytes(payload_bytes) == ring_bytes, "size of a packet in the ring");
  const PacketDescriptor descriptor = InBandDescriptor(payload_bytes, transaction_id);
  Require(!ParsePacket(descriptor, ring_bytes - 1).ok(), "a missing byte is noticed");
  const auto view = ParsePacket(descriptor, ring_bytes);
  Require(view.ok() && view->type == PacketType::kInBand && !view->completion_requested &&
              view->transaction_id == transaction_id && view->payload_offset_bytes == 16 &&
              view->payload_bytes == (payload_bytes + 7) / 8 * 8 && view->ring_bytes == ring_bytes,
          "what is built is parsed");
  const auto start = static_cast<uint32_t>(transaction_id);
  const auto trailer = std::bit_cast<uint64_t>(TrailerOf(start));
  if constexpr (std::endian::native == std::endian::little) {
    Require(trailer == uint64_t{start} << 32, "the trailer is the start, shifted");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint32_t available_bytes = input.U32();
  const Fields fields{.type = input.U16(),
                      .payload_offset_units = input.U16(),
                      .length_units = input.U16(),
                      .flags = input.U16(),
                      .transaction_id = input.U64()};
  const uint32_t range_count = input.U32();

  PacketDescriptor descriptor;
  descriptor.type = fields.type;
  descriptor.payload_offset_units = fields.payload_offset_units;
  descriptor.length_units = fields.length_units;
  descriptor.flags = fields.flags;
  descriptor.transaction_id = fields.transaction_id;
  const auto view = ParsePacket(descriptor, available_bytes);
  Require(view.ok() == Legal(fields, available_bytes), "accepted as the specification says");
  if (view.ok()) {
    CheckView(*view, fields);
    CheckExtraHeader(*view, range_count);
  }
  CheckBuilder(available_bytes % (kPacketPayloadBytesMax + 1), fields.transaction_id);
  return 0;
}

}  // namespace vmbfs::hyperv
