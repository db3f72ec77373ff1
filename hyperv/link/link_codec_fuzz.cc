// The link's parsers against the tables of README.md, written once more in plain
// numbers; and the builders' frames against the same header rules.
//
// Input: a frame's header of 24 bytes, and its payload.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/link/link_channel_codec.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_format.h"

namespace vmbfs::hyperv {
namespace {

struct Row {
  uint32_t number;  // of the type
  bool from_vmm;
  uint64_t descriptors_min, descriptors_max;
  uint64_t reply_descriptors_min, reply_descriptors_max;
};
constexpr Row kRows[] = {
    {0x01, true, 0, 0, 0, 0},  {0x02, true, 1, 1, 0, 0},  {0x03, true, 0, 0, 0, 0},
    {0x04, true, 0, 0, 0, 0},  {0x05, true, 0, 0, 0, 0},  {0x06, true, 0, 0, 0, 0},
    {0x07, true, 0, 0, 0, 0},  {0x08, true, 1, 1, 0, 0},  {0x09, true, 1, 1, 0, 0},
    {0x0A, true, 1, 1, 0, 0},  {0x0B, false, 1, 1, 0, 0}, {0x20, true, 0, 0, 0, 0},
    {0x21, true, 0, 0, 0, 0},  {0x22, true, 0, 0, 0, 0},  {0x23, true, 0, 0, 0, 0},
    {0x24, true, 1, 1, 0, 0},  {0x25, true, 1, 2, 0, 0},  {0x30, false, 0, 0, 1, 2},
    {0x31, false, 1, 1, 0, 0}, {0x32, false, 0, 0, 0, 0}, {0x33, false, 0, 0, 0, 0},
    {0x34, false, 0, 0, 0, 0}, {0x35, false, 0, 0, 1, 1}, {0x36, false, 0, 0, 0, 0},
    {0x40, false, 0, 0, 0, 0}, {0x41, false, 0, 0, 0, 0}, {0x42, false, 0, 0, 0, 0},
    {0x43, false, 0, 0, 0, 0}, {0x50, true, 0, 1, 0, 0},  {0x51, true, 0, 0, 0, 0},
    {0x52, true, 2, 3, 0, 0},  {0x53, true, 1, 2, 0, 0},  {0x54, true, 0, 0, 0, 0},
    {0x55, true, 0, 0, 0, 0},
};

uint64_t At(std::span<const std::byte> bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i > 0; --i) {
    value = value << 8 | std::to_integer<uint64_t>(bytes[offset + i - 1]);
  }
  return value;
}

bool HeaderIsLegal(std::span<const std::byte> header, bool from_vmm) {
  const uint64_t type = At(header, 0, 4);
  const uint64_t flags = At(header, 4, 2);
  const uint64_t descriptors = At(header, 6, 2);
  const bool reply = (flags & 1) != 0;
  const Row* row = std::ranges::find(kRows, type & 0xFFFF, &Row::number);
  if (type >> 16 != 0x564C || row == std::end(kRows)) return false;
  // Nothing, REPLY, NEED_ACK, or REPLY and ERROR.
  if (flags != 0 && flags != 1 && flags != 2 && flags != 5) return false;
  if (At(header, 8, 4) > 4096 - 24 || At(header, 12, 4) != 0) return false;
  if (row->from_vmm != (from_vmm != reply)) return false;
  if (flags == 5) return descriptors == 0;
  return reply ? descriptors >= row->reply_descriptors_min &&
                     descriptors <= row->reply_descriptors_max
               : descriptors >= row->descriptors_min && descriptors <= row->descriptors_max;
}

void CheckHeader(std::span<const std::byte, kLinkHeaderBytes> bytes) {
  const auto header = ParseLinkHeader(bytes);
  Require(header.ok() == HeaderIsLegal(bytes, true), "a header is legal as the tables say");
  if (!header.ok()) return;
  const uint64_t flags = At(bytes, 4, 2);
  Require(static_cast<uint32_t>(header->type()) == At(bytes, 0, 4) &&
              header->reply == ((flags & 1) != 0) && header->need_ack == ((flags & 2) != 0) &&
              header->error == ((flags & 4) != 0) && header->descriptor_count == At(bytes, 6, 2) &&
              header->payload_bytes == At(bytes, 8, 4) && header->seq == At(bytes, 16, 8),
          "its fields are the bytes'");
}

void CheckHello(std::span<const std::byte> payload) {
  const auto hello = ParseHello(payload);
  const bool legal = payload.size() >= 44 && At(payload, 0, 2) == 1 &&
                     At(payload, 40, 4) == payload.size() - 44 && payload.size() <= 44 + 128 &&
                     At(payload, 32, 4) >= 1 && At(payload, 32, 4) <= 4096;
  Require(hello.ok() == legal, "HELLO");
  if (!legal) return;
  Require(hello->minor == At(payload, 2, 2) && hello->level == At(payload, 4, 4) &&
              hello->features == At(payload, 8, 8) && hello->vp_count == At(payload, 32, 4) &&
              hello->delivery_modes == At(payload, 36, 4),
          "its fields");
  Require(std::ranges::equal(hello->vm_uuid, payload.subspan(16, 16)), "its UUID");
  Require(std::ranges::equal(std::as_bytes(std::span(hello->label)), payload.subspan(44)),
          "its label");
}

void CheckPayloads(std::span<const std::byte> payload) {
  const size_t size = payload.size();
  const bool eight = size == 8 && At(payload, 4, 4) == 0;

  const auto mem_add = ParseMemAdd(payload);
  Require(mem_add.ok() == (size == 32), "MEM_ADD");
  if (mem_add.ok()) {
    Require(mem_add->region.id == At(payload, 0, 4) && mem_add->flags == At(payload, 4, 4) &&
                mem_add->region.gpa == At(payload, 8, 8) &&
                mem_add->region.bytes == At(payload, 16, 8) &&
                mem_add->region.file_offset == At(payload, 24, 8),
            "its fields");
  }
  const auto mem_del = ParseMemDel(payload);
  Require(mem_del.ok() == eight && (!eight || *mem_del == At(payload, 0, 4)), "MEM_DEL");
  const auto reset = ParseReset(payload);
  Require(reset.ok() == eight && (!eight || *reset == At(payload, 0, 4)), "RESET");

  const auto synic = ParseSynic(payload);
  Require(synic.ok() == (size == 40 && At(payload, 4, 4) == 0), "SYNIC");
  if (synic.ok()) {
    Require(synic->vp == At(payload, 0, 4) && synic->scontrol == At(payload, 8, 8) &&
                synic->siefp == At(payload, 16, 8) && synic->simp == At(payload, 24, 8) &&
                synic->sint2 == At(payload, 32, 8),
            "its fields");
  }
  const auto post = ParsePost(payload);
  Require(post.ok() == (size == 264), "POST");
  if (post.ok()) {
    Require(post->post_seq == At(payload, 0, 8) && post->vp == At(payload, 8, 4) &&
                post->connection == At(payload, 12, 4) && post->type == At(payload, 16, 4) &&
                post->size == At(payload, 20, 4) &&
                std::ranges::equal(post->payload, payload.subspan(24)),
            "its fields");
  }
  const auto signal = ParseSignal(payload);
  Require(signal.ok() == (size == 8 && At(payload, 6, 2) == 0), "SIGNAL");
  if (signal.ok()) {
    Require(signal->connection == At(payload, 0, 4) && signal->flag == At(payload, 4, 2),
            "its fields");
  }
  const auto eom = ParseEom(payload);
  Require(eom.ok() == (size == 8 && At(payload, 4, 4) <= 15), "EOM");
  if (eom.ok())
    Require(eom->vp == At(payload, 0, 4) && eom->sint == At(payload, 4, 4), "its fields");
  Require(ParseEmpty(payload).ok() == payload.empty(), "no payload");

  const bool error_legal = size >= 8 && At(payload, 4, 4) <= 1024 && At(payload, 4, 4) == size - 8;
  const absl::Status error = ParseErrorReply(payload);
  Require(absl::IsFailedPrecondition(error) == error_legal, "an ERROR's payload");
  Require(error_legal || absl::IsInvalidArgument(error), "or it is broken");
  for (const char each : error.message()) {
    Require(each >= 0x20 && each < 0x7F, "a peer's text is escaped");
  }
}

// The channel level's, with as many descriptors as a header may announce.
void CheckChannelPayloads(std::span<const std::byte> payload) {
  const size_t size = payload.size();
  const auto offer = ParseOfferOk(payload);
  Require(offer.ok() == (size == 16 && At(payload, 12, 4) == 0), "OFFER's reply");
  if (offer.ok()) {
    Require(offer->channel == At(payload, 0, 4) && offer->relid == At(payload, 4, 4) &&
                offer->connection == At(payload, 8, 4),
            "its fields");
  }
  for (uint64_t descriptors = 0; descriptors <= 1; ++descriptors) {
    const auto add = ParseGpadlAdd(payload, descriptors);
    const uint64_t pages = size >= 16 ? At(payload, 12, 4) : 0;
    const uint64_t inline_pages = pages <= 400 ? pages : 0;
    const bool legal =
        size >= 16 && (descriptors == 1) == (pages > 400) && size == 16 + 8 * inline_pages;
    Require(add.ok() == legal, "GPADL_ADD");
    if (!legal) continue;
    Require(add->channel == At(payload, 0, 4) && add->gpadl == At(payload, 4, 4) &&
                add->range_count == At(payload, 8, 4) && add->pages == pages &&
                add->page_frames.size() == inline_pages,
            "its fields");
    for (size_t i = 0; i < add->page_frames.size(); ++i) {
      Require(add->page_frames[i] == At(payload, 16 + 8 * i, 8), "its page frames");
    }
  }
  for (uint64_t descriptors = 2; descriptors <= 3; ++descriptors) {
    const auto open = ParseOpen(payload, descriptors);
    const bool direct_event = size == 168 && (At(payload, 20, 4) & 2) != 0;
    const bool unused_is_zero = size == 168 && At(payload, 152, 8) == 0 && At(payload, 160, 8) == 0;
    Require(open.ok() == (size == 168 && direct_event == (descriptors == 3) &&
                          (direct_event || unused_is_zero)),
            "OPEN");
    if (!open.ok()) continue;
    Require(open->channel == At(payload, 0, 4) && open->ring_gpadl == At(payload, 8, 4) &&
                open->downstream_page_offset == At(payload, 12, 4) &&
                open->target_vp == At(payload, 16, 4) && open->flags == At(payload, 20, 4),
            "its fields");
  }
  const auto del = ParseGpadlDel(payload);
  const auto modify = ParseModify(payload);
  Require(del.ok() == (size == 8) && modify.ok() == (size == 8), "GPADL_DEL and MODIFY");
  if (size == 8) {
    Require(del->channel == At(payload, 0, 4) && del->gpadl == At(payload, 4, 4) &&
                modify->channel == At(payload, 0, 4) && modify->target_vp == At(payload, 4, 4),
            "their fields");
  }
  const auto channel = ParseChannel("CLOSE", payload);
  const bool eight = size == 8 && At(payload, 4, 4) == 0;
  Require(channel.ok() == eight && (!eight || *channel == At(payload, 0, 4)), "CLOSE and RELEASE");
  const auto result = ParseMsgSendResult(payload);
  const bool known = eight && At(payload, 0, 4) <= 2;
  Require(result.ok() == known && (!known || static_cast<uint64_t>(*result) == At(payload, 0, 4)),
          "MSG_SEND's reply");
}

void CheckBuilt(const std::vector<std::byte>& frame, uint32_t number, uint64_t flags, uint64_t seq,
                size_t payload_bytes) {
  Require(frame.size() == 24 + payload_bytes && frame.size() <= 4096, "a frame's size");
  Require(At(frame, 0, 4) == (0x564C0000 | number) && At(frame, 4, 2) == flags &&
              At(frame, 8, 4) == payload_bytes && At(frame, 16, 8) == seq,
          "a frame's header");
  Require(HeaderIsLegal(frame, false), "is one that a server may send");
}

void CheckBuilders(uint64_t seq, uint32_t word, std::span<const std::byte> text_bytes) {
  std::string text;
  for (const std::byte each : text_bytes) text.push_back(static_cast<char>(each));
  CheckBuilt(BuildReply(LinkType::kPause, seq), 0x05, 1, seq, 0);
  CheckBuilt(BuildHelloOk(seq, {.minor = 1, .level = word, .delivery_mode = 1}), 0x01, 1, seq, 24);
  CheckBuilt(BuildSintGet(seq, word, 2), 0x30, 0, seq, 8);
  CheckBuilt(BuildConnSet(seq, word), 0x31, 0, seq, 8);
  CheckBuilt(BuildConnClr(seq, word), 0x32, 0, seq, 8);
  CheckBuilt(BuildPostAck(seq, seq), 0x33, 0, seq, 8);
  const auto message = text_bytes.first(std::min<size_t>(text_bytes.size(), 240));
  const auto sent = BuildMsgSend(seq, seq + 1, word, 2, message);
  CheckBuilt(sent, 0x34, 0, seq, 264);
  Require(At(sent, 24, 8) == seq + 1 && At(sent, 32, 4) == word && At(sent, 36, 4) == 2 &&
              At(sent, 40, 4) == 1 && At(sent, 44, 4) == message.size() &&
              std::equal(message.begin(), message.end(), sent.begin() + 48),
          "a message to the guest");
  CheckBuilt(BuildEventGet(seq, word, 2, 5), 0x35, 0, seq, 16);
  CheckBuilt(BuildRevoke(seq, word), 0x41, 0, seq, 8);
  ChannelOffer offer;
  offer.flags = static_cast<uint16_t>(word);
  std::copy_n(message.begin(), std::min<size_t>(message.size(), 120), offer.user_defined.begin());
  const auto offered = BuildOffer(seq, offer);
  CheckBuilt(offered, 0x40, 0, seq, 168);
  Require(At(offered, 24 + 32, 2) == offer.flags &&
              std::ranges::equal(offer.user_defined, std::span(offered).subspan(24 + 48)),
          "an offer's flags and user data");
  const LinkHeader open{.rule = FindLinkType(0x564C0052), .seq = seq};
  CheckBuilt(BuildResult(open, word), 0x52, 1, seq, 8);
  const auto error = BuildError(LinkType::kMemAdd, seq, LinkError::kRefused, text);
  const size_t text_size = std::min<size_t>(text.size(), 1024);
  CheckBuilt(error, 0x02, 5, seq, 8 + text_size);
  Require(At(error, 24, 4) == 3 && At(error, 28, 4) == text_size, "an ERROR says code and length");
  Require(std::equal(error.begin() + 32, error.end(), text_bytes.begin()), "and the text");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  if (bytes.size() < kLinkHeaderBytes) return 0;
  const std::span<const std::byte> payload = bytes.subspan(kLinkHeaderBytes);
  CheckHeader(bytes.first<kLinkHeaderBytes>());
  CheckHello(payload);
  CheckPayloads(payload);
  CheckChannelPayloads(payload);
  CheckBuilders(At(bytes, 16, 8), static_cast<uint32_t>(At(bytes, 0, 4)), payload);
  return 0;
}

}  // namespace vmbfs::hyperv
