#include "hyperv/guest/guest_messages.h"

#include <algorithm>
#include <boost/endian/buffers.hpp>
#include <cstring>

namespace vmbfs::hyperv {
namespace {

constexpr Guid kFirmwareClientId = Guid::FromLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e");

// An empty message; every one begins with its header.
template <typename Message>
Message WithType(MessageType type) {
  Message message{};
  MessageHeader header{};
  header.type = static_cast<uint32_t>(type);
  std::memcpy(static_cast<void*>(&message), &header, sizeof(header));
  return message;
}

template <typename Message>
GuestMessage Bytes(const Message& message) {
  GuestMessage bytes(sizeof(message));
  std::memcpy(bytes.data(), &message, sizeof(message));
  return bytes;
}

// The range data of a GPADL: byte count and offset in one word, then the frames.
std::vector<boost::endian::little_uint64_buf_t> RangeWords(std::span<const uint64_t> page_frames) {
  std::vector<boost::endian::little_uint64_buf_t> words;
  words.emplace_back(page_frames.size() * kPageBytes);
  for (uint64_t frame : page_frames) words.emplace_back(frame);
  return words;
}

GuestMessage WithWords(GuestProfile profile, GuestMessage message,
                       std::span<const boost::endian::little_uint64_buf_t> words) {
  const std::span<const std::byte> data = std::as_bytes(words);
  message.insert(message.end(), data.begin(), data.end());
  if (profile == GuestProfile::kFirmware) message.resize(kMessageBytesMax);
  return message;
}

}  // namespace

ProfileTraits TraitsOf(GuestProfile profile) {
  if (profile == GuestProfile::kFirmware) {
    return {.versions = {kVersion6_0, kVersion3_0},
            .ring_pages = 5,
            .ring_layout = RamLayout::kContiguous,
            .exact_sizes = true,
            .strict = true,
            .releases = false};
  }
  return {.versions = {kVersion6_0, kVersion5_3, kVersion5_2, kVersion5_1, kVersion5_0, kVersion4_1,
                       kVersion4_0, kVersion3_0, kVersion2_4},
          .ring_pages = 17,
          .ring_layout = RamLayout::kScattered,
          .exact_sizes = false,
          .strict = false,
          .releases = true};
}

uint32_t ContactConnection(GuestProfile profile, uint32_t version) {
  return profile == GuestProfile::kLinux && version >= kVersion5_0 ? kMultiClientMessageConnection
                                                                   : kMessageConnection;
}

GuestMessage BuildInitiateContact(GuestProfile profile, uint32_t version, uint32_t target_vp,
                                  const ContactPages& pages) {
  InitiateContact2Message message =
      WithType<InitiateContact2Message>(MessageType::kInitiateContact);
  InitiateContactMessage& contact = message.contact;
  contact.version = version;
  contact.target_vp = target_vp;
  if (profile == GuestProfile::kFirmware) {
    if (version < kVersion6_0) return Bytes(contact);
    contact.feature_flags = kFeatureClientId;
    message.client_id = kFirmwareClientId;
    return Bytes(message);
  }
  contact.parent_to_child_monitor_page_gpa = pages.parent_to_child_monitor_page_gpa;
  contact.child_to_parent_monitor_page_gpa = pages.child_to_parent_monitor_page_gpa;
  if (version >= kVersion5_0) {
    contact.target_sint = kVmbusSint;
    return Bytes(contact);
  }
  GuestMessage bytes = Bytes(contact);
  const boost::endian::little_uint64_buf_t interrupt_page(pages.interrupt_page_gpa);
  std::memcpy(&bytes[offsetof(InitiateContactMessage, target_sint)], &interrupt_page,
              sizeof(interrupt_page));
  return bytes;
}

std::vector<GuestMessage> BuildGpadl(GuestProfile profile, uint32_t channel_id, uint32_t gpadl_id,
                                     std::span<const uint64_t> page_frames) {
  const std::vector<boost::endian::little_uint64_buf_t> words = RangeWords(page_frames);
  auto left = std::span(words);

  GpadlHeaderMessage header = WithType<GpadlHeaderMessage>(MessageType::kGpadlHeader);
  header.channel_id = channel_id;
  header.gpadl_id = gpadl_id;
  header.range_buffer_bytes = static_cast<uint16_t>(words.size() * sizeof(words[0]));
  header.range_count = 1;
  size_t count = std::min(left.size(), kGpadlHeaderWordsMax);
  std::vector<GuestMessage> messages = {WithWords(profile, Bytes(header), left.first(count))};

  for (left = left.subspan(count); !left.empty(); left = left.subspan(count)) {
    GpadlBodyMessage body = WithType<GpadlBodyMessage>(MessageType::kGpadlBody);
    const bool numbered = profile == GuestProfile::kLinux;
    body.message_number = numbered ? static_cast<uint32_t>(messages.size()) : 0;
    body.gpadl_id = gpadl_id;
    count = std::min(left.size(), kGpadlBodyWordsMax);
    messages.push_back(WithWords(profile, Bytes(body), left.first(count)));
  }
  return messages;
}

uint32_t OpenIdOf(GuestProfile profile, uint32_t channel_id) {
  return profile == GuestProfile::kFirmware ? 0 : channel_id;
}

GuestMessage BuildOpenChannel(GuestProfile profile, uint32_t channel_id, uint32_t gpadl_id,
                              uint32_t target_vp, uint32_t downstream_page_offset) {
  OpenChannel2Message message = WithType<OpenChannel2Message>(MessageType::kOpenChannel);
  message.open.channel_id = channel_id;
  message.open.open_id = OpenIdOf(profile, channel_id);
  message.open.ring_gpadl_id = gpadl_id;
  message.open.target_vp = target_vp;
  message.open.downstream_page_offset = downstream_page_offset;
  return profile == GuestProfile::kFirmware ? Bytes(message) : Bytes(message.open);
}

GuestMessage BuildHeaderOnly(MessageType type) { return Bytes(WithType<HeaderOnlyMessage>(type)); }

GuestMessage BuildChannelId(MessageType type, uint32_t channel_id) {
  ChannelIdMessage message = WithType<ChannelIdMessage>(type);
  message.channel_id = channel_id;
  return Bytes(message);
}

GuestMessage BuildGpadlTeardown(uint32_t channel_id, uint32_t gpadl_id) {
  GpadlTeardownMessage message = WithType<GpadlTeardownMessage>(MessageType::kGpadlTeardown);
  message.channel_id = channel_id;
  message.gpadl_id = gpadl_id;
  return Bytes(message);
}

GuestMessage BuildModifyChannel(uint32_t channel_id, uint32_t target_vp) {
  ModifyChannelMessage message = WithType<ModifyChannelMessage>(MessageType::kModifyChannel);
  message.channel_id = channel_id;
  message.target_vp = target_vp;
  return Bytes(message);
}

}  // namespace vmbfs::hyperv
