#include "hyperv/pipe/byte_pipe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/pipe/pipe_packet.h"

namespace vmbfs::hyperv {
namespace {

template <typename Wire>
std::array<std::byte, sizeof(Wire)> BytesOf(const Wire& wire) {
  return std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire);
}

PipeHeader DataHeader(size_t data_bytes) {
  PipeHeader header;
  header.type = static_cast<uint32_t>(PipeMessageType::kData);
  header.data_bytes = static_cast<uint32_t>(data_bytes);
  return header;
}

// REQUIRES: both are at most kPipeDataBytesMax.
PipeHeader PartialHeader(size_t total_bytes, size_t consumed_bytes) {
  PartialSize size;
  size.total_bytes = static_cast<uint16_t>(total_bytes);
  size.consumed_bytes = static_cast<uint16_t>(consumed_bytes);
  PipeHeader header;
  header.type = static_cast<uint32_t>(PipeMessageType::kPartial);
  header.data_bytes = std::bit_cast<decltype(header.data_bytes)>(size);
  return header;
}

}  // namespace

BytePipe::BytePipe(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}

absl::StatusOr<std::optional<size_t>> BytePipe::Read(std::span<std::byte> buffer) {
  if (buffer.empty()) std::abort();
  size_t read_bytes = 0;
  while (read_bytes < buffer.size()) {
    const absl::StatusOr<bool> there = BeginMessage();
    if (!there.ok() && read_bytes == 0) return there.status();
    if (!there.ok() || !*there) break;
    if (message_->total_bytes == 0) {
      if (read_bytes != 0) break;  // told by the next Read, and kept until then
      EndMessage();
      Consume();
      return 0;
    }
    read_bytes += Take(buffer.subspan(read_bytes));
  }
  if (read_bytes == 0) return std::nullopt;
  if (message_ && message_->consumed_bytes != 0) MarkPartial();
  Consume();
  return read_bytes;
}

absl::StatusOr<bool> BytePipe::BeginMessage() {
  if (message_) return true;
  IncomingRing& ring = channel_->incoming();
  const auto packet = ring.Peek();
  if (!packet.ok()) return packet.status();
  if (!packet->has_value()) return false;
  ring.Mask();
  const absl::StatusOr<PipeHeader> header = ReadPipeHeader(ring, **packet);
  if (!header.ok()) return header.status();
  absl::StatusOr<Message> message = Parse(**packet, *header);
  if (!message.ok()) return message.status();
  message_ = *message;
  return true;
}

absl::StatusOr<BytePipe::Message> BytePipe::Parse(const PacketView& packet,
                                                  const PipeHeader& header) {
  Message message{.packet = packet};
  switch (static_cast<PipeMessageType>(header.type.value())) {
    case PipeMessageType::kData:
      message.total_bytes = header.data_bytes.value();
      break;
    case PipeMessageType::kPartial: {
      const auto size = std::bit_cast<PartialSize>(header.data_bytes);
      message.total_bytes = size.total_bytes.value();
      message.consumed_bytes = size.consumed_bytes.value();
      if (message.consumed_bytes >= message.total_bytes) {
        return absl::InvalidArgumentError(absl::StrCat("pipe: partial message of ",
                                                       message.total_bytes, " bytes, of which ",
                                                       message.consumed_bytes, " were read"));
      }
      break;
    }
    default:
      return UnknownPipeMessageType(header.type.value());
  }
  if (absl::Status status = CheckPipeDataBytes(packet, message.total_bytes); !status.ok()) {
    return status;
  }
  if (message.total_bytes > kPipeDataBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: message of ", message.total_bytes,
                                                   " bytes; at most ", kPipeDataBytesMax,
                                                   " are taken"));
  }
  return message;
}

size_t BytePipe::Take(std::span<std::byte> to) {
  const size_t bytes = std::min(to.size(), message_->total_bytes - message_->consumed_bytes);
  channel_->incoming().CopyPayload(message_->packet, sizeof(PipeHeader) + message_->consumed_bytes,
                                   to.first(bytes));
  message_->consumed_bytes += bytes;
  if (message_->consumed_bytes == message_->total_bytes) EndMessage();
  return bytes;
}

void BytePipe::MarkPartial() {
  channel_->incoming().RewritePayload(
      message_->packet, 0, BytesOf(PartialHeader(message_->total_bytes, message_->consumed_bytes)));
}

void BytePipe::EndMessage() {
  channel_->incoming().Advance(message_->packet);
  message_.reset();
}

void BytePipe::Consume() {
  if (channel_->incoming().Consume()) channel_->SignalPeer();
}

size_t BytePipe::chunk_bytes_max() const {
  return std::min(kChunkBytesMax, channel_->outgoing().payload_bytes_max() - sizeof(PipeHeader));
}

absl::StatusOr<size_t> BytePipe::Write(std::span<const std::byte> bytes) {
  size_t written_bytes = 0;
  while (written_bytes < bytes.size()) {
    const auto rest = bytes.subspan(written_bytes);
    const auto chunk = rest.first(std::min(rest.size(), chunk_bytes_max()));
    const absl::StatusOr<bool> committed = Commit(chunk);
    if (!committed.ok() && written_bytes == 0) return committed.status();
    if (!committed.ok() || !*committed) break;
    written_bytes += chunk.size();
  }
  if (written_bytes != 0) Publish();
  return written_bytes;
}

absl::StatusOr<bool> BytePipe::WriteEndOfStream() {
  const absl::StatusOr<bool> committed = Commit({});
  if (committed.ok() && *committed) Publish();
  return committed;
}

absl::StatusOr<bool> BytePipe::Commit(std::span<const std::byte> chunk) {
  OutgoingRing& ring = channel_->outgoing();
  const absl::StatusOr<bool> fits = ring.Reserve(sizeof(PipeHeader) + chunk.size());
  if (!fits.ok() || !*fits) return fits;
  ring.ClearSpaceRequest();
  ring.CopyIn(0, BytesOf(DataHeader(chunk.size())));
  ring.CopyIn(sizeof(PipeHeader), chunk);
  ring.Commit(sizeof(PipeHeader) + chunk.size());
  return true;
}

void BytePipe::Publish() {
  if (channel_->outgoing().Publish()) channel_->SignalPeer();
}

absl::StatusOr<bool> BytePipe::ArmRead() {
  const absl::StatusOr<bool> arrived = channel_->incoming().Arm();
  if (!arrived.ok()) return arrived;
  // A message that is held stands at the ring's cursor, whatever the ring says.
  return *arrived || message_.has_value();
}

absl::StatusOr<bool> BytePipe::ArmWrite(size_t bytes) {
  return channel_->outgoing().RequestSpace(sizeof(PipeHeader) + std::min(bytes, chunk_bytes_max()));
}

}  // namespace vmbfs::hyperv
