#include "tests/conformance/vmbfs_messages.h"

#include <algorithm>
#include <utility>

#include "tests/conformance/vmbus_messages.h"

namespace vmbfs::conformance {
namespace {

Bytes WithPath(Bytes message, std::u16string_view path) {
  Append(message, PathBytes(path));
  return message;
}

}  // namespace

Bytes Packet(ByteView payload) {
  Bytes packet(16);
  Append(packet, payload);
  packet.resize((packet.size() + 7) / 8 * 8);
  Put(packet, 0, 2, 6);
  Put(packet, 2, 2, 2);
  Put(packet, 4, 2, packet.size() / 8);
  return packet;
}

Bytes PipeMessage(uint32_t type, ByteView data, size_t payload_bytes) {
  Bytes payload(8);
  Put(payload, 0, 4, type);
  Put(payload, 4, 4, data.size());
  Append(payload, data);
  payload.resize(std::max(payload.size(), payload_bytes));
  return Packet(payload);
}

Bytes PathBytes(std::u16string_view path) {
  Bytes bytes(2 * path.size());
  for (size_t index = 0; index < path.size(); ++index) Put(bytes, 2 * index, 2, path[index]);
  return bytes;
}

Bytes VersionRequest(uint32_t version) { return MessageWith(1, {version}); }

Bytes InfoRequest(std::u16string_view path) { return WithPath(Message(3), path); }

Bytes ReadRequest(uint32_t count, uint64_t offset, std::u16string_view path) {
  Bytes message = Message(5, 20);
  Put(message, 8, 4, count);
  Put(message, 12, 8, offset);
  return WithPath(std::move(message), path);
}

Bytes RdmaRequest(const RdmaFields& fields, std::u16string_view path) {
  Bytes message = Message(7, 32);
  Put(message, 8, 4, fields.handle);
  Put(message, 12, 4, fields.count);
  Put(message, 16, 8, fields.offset);
  Put(message, 24, 8, fields.token_offset);
  return WithPath(std::move(message), path);
}

Bytes SetUpGpaDirect(uint32_t handle, bool writable, uint32_t byte_count, uint32_t byte_offset,
                     std::span<const uint64_t> page_frames) {
  Bytes data(17 + 8 * page_frames.size());
  Put(data, 0, 4, handle);
  Put(data, 4, 1, writable ? 1 : 0);
  Put(data, 5, 4, 1);
  Put(data, 9, 4, byte_count);
  Put(data, 13, 4, byte_offset);
  for (size_t index = 0; index < page_frames.size(); ++index) {
    Put(data, 17 + 8 * index, 8, page_frames[index]);
  }
  return data;
}

}  // namespace vmbfs::conformance
