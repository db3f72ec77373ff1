#include "tests/conformance/vmbus_messages.h"

#include <algorithm>

namespace vmbfs::conformance {
namespace {

constexpr size_t kHeaderWords = 27;
constexpr size_t kBodyWords = 28;

struct HostMessageSize {
  uint32_t type;
  size_t bytes;
};
// Section 2.1.
constexpr HostMessageSize kHostMessages[] = {
    {kOfferChannel, 196},         {kRescind, 12},
    {kAllOffersDelivered, 8},     {kOpenResult, 20},
    {kGpadlCreated, 20},          {kGpadlTorndown, 12},
    {kVersionResponse, 16},       {kVersionResponse, 20},
    {kVersionResponse, 40},       {kUnloadComplete, 8},
    {kCloseReservedResponse, 12}, {kTlConnectResult, 44},
    {kModifyChannelResponse, 16}, {kModifyConnectionResponse, 9},
    {kPauseResponse, 8},
};

void AppendWords(Bytes& bytes, const std::vector<uint64_t>& words, size_t first, size_t count) {
  const size_t last = std::min(words.size(), first + count);
  for (size_t index = first; index < last; ++index) {
    bytes.resize(bytes.size() + 8);
    Put(bytes, bytes.size() - 8, 8, words[index]);
  }
}

}  // namespace

bool IsHostMessageSize(uint32_t type, size_t bytes) {
  return std::any_of(std::begin(kHostMessages), std::end(kHostMessages),
                     [&](const auto& each) { return each.type == type && each.bytes == bytes; });
}

std::vector<uint32_t> HostMessageTypes() {
  std::vector<uint32_t> types;
  for (const HostMessageSize& each : kHostMessages) {
    if (types.empty() || types.back() != each.type) types.push_back(each.type);
  }
  return types;
}

Bytes Message(uint32_t type, size_t bytes) {
  Bytes message(bytes);
  Put(message, 0, 4, type);
  return message;
}

Bytes MessageWith(uint32_t type, const std::vector<uint32_t>& fields) {
  Bytes message = Message(type, 8 + 4 * fields.size());
  for (size_t index = 0; index < fields.size(); ++index) {
    Put(message, 8 + 4 * index, 4, fields[index]);
  }
  return message;
}

Bytes Contact(const ContactFields& fields) {
  Bytes message = Message(kInitiateContact, fields.bytes);
  Put(message, 8, 4, fields.version);
  Put(message, 12, 4, fields.target_vp);
  if (fields.version >= kVersion5_0) {
    Put(message, 16, 1, fields.sint);
    Put(message, 17, 1, fields.vtl);
    Put(message, 20, 4, fields.features);
  }
  Put(message, 24, 8, fields.parent_to_child_gpa);
  Put(message, 32, 8, fields.child_to_parent_gpa);
  if (fields.bytes >= 56) Put(message, 40, 8, 0x4E423E8A18DD3964);  // any GUID
  return message;
}

std::vector<uint64_t> RangeWords(uint32_t byte_count, uint32_t byte_offset,
                                 const std::vector<uint64_t>& page_frames) {
  std::vector<uint64_t> words = {uint64_t{byte_offset} << 32 | byte_count};
  words.insert(words.end(), page_frames.begin(), page_frames.end());
  return words;
}

std::vector<Bytes> Gpadl(const GpadlFields& fields) {
  std::vector<Bytes> messages;
  Bytes header = MessageWith(kGpadlHeader, {fields.channel_id, fields.gpadl_id, 0});
  Put(header, 16, 2, fields.range_bytes.value_or(static_cast<uint32_t>(8 * fields.words.size())));
  Put(header, 18, 2, fields.range_count);
  AppendWords(header, fields.words, 0, kHeaderWords);
  messages.push_back(std::move(header));
  for (size_t first = kHeaderWords; first < fields.words.size(); first += kBodyWords) {
    const size_t index = messages.size() - 1;
    uint32_t number = fields.padded ? 0 : static_cast<uint32_t>(index + 1);
    if (!fields.body_numbers.empty()) {
      number = fields.body_numbers[index % fields.body_numbers.size()];
    }
    Bytes body = MessageWith(kGpadlBody, {number, fields.gpadl_id});
    AppendWords(body, fields.words, first, kBodyWords);
    messages.push_back(std::move(body));
  }
  if (fields.padded) {
    for (Bytes& message : messages) message.resize(kMessageBytes, fields.padding);
  }
  return messages;
}

Bytes Open(const OpenFields& fields) {
  Bytes message = MessageWith(kOpenChannel, {fields.channel_id, fields.open_id, fields.gpadl_id,
                                             fields.target_vp, fields.downstream_page});
  message.resize(148);
  message.resize(fields.bytes, fields.tail);
  if (fields.connection_id && fields.bytes >= 156) {
    Put(message, 148, 4, *fields.connection_id);
    Put(message, 152, 2, fields.event_flag);
    Put(message, 154, 2, 0);
  }
  return message;
}

}  // namespace vmbfs::conformance
