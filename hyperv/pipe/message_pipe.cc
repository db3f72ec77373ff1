#include "hyperv/pipe/message_pipe.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/packet/packet_format.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs::hyperv {
namespace {

using PipeHeaderBytes = std::array<std::byte, sizeof(PipeHeader)>;

PipeHeaderBytes DataHeader(size_t data_bytes) {
  PipeHeader header;
  header.type = static_cast<uint32_t>(PipeMessageType::kData);
  header.data_bytes = static_cast<uint32_t>(data_bytes);
  return std::bit_cast<PipeHeaderBytes>(header);
}

bool IsIgnored(uint32_t type) {
  switch (static_cast<PipeMessageType>(type)) {
    case PipeMessageType::kSetUpGpaDirect:
    case PipeMessageType::kTearDownGpaDirect:
    case PipeMessageType::kIndicationComplete:
      return true;
    case PipeMessageType::kData:
    case PipeMessageType::kPartial:
      break;
  }
  return false;
}

absl::Status CheckPacket(const PacketView& packet) {
  if (packet.type != PacketType::kInBand) {
    return absl::InvalidArgumentError(
        absl::StrCat("pipe: packet of type ", static_cast<uint16_t>(packet.type),
                     "; a pipe carries in-band packets (type 6) only"));
  }
  // Nobody sends one with a pipe message, and the peer would wait for it.
  if (packet.completion_requested) {
    return absl::InvalidArgumentError("pipe: a completion is requested; a pipe has none");
  }
  if (packet.payload_bytes < sizeof(PipeHeader)) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: packet payload is ", packet.payload_bytes,
                                                   " bytes; at least ", sizeof(PipeHeader),
                                                   " are needed"));
  }
  return absl::OkStatus();
}

}  // namespace

MessagePipe::MessagePipe(std::unique_ptr<Channel> channel) : channel_(std::move(channel)) {}

size_t MessagePipe::max_message_bytes() const {
  return std::min(kPipeDataBytesMax, channel_->outgoing().payload_bytes_max() - sizeof(PipeHeader));
}

absl::StatusOr<size_t> MessagePipe::ParseHeader(const PacketView& packet,
                                                size_t buffer_bytes) const {
  if (absl::Status status = CheckPacket(packet); !status.ok()) return status;
  PipeHeaderBytes bytes;
  channel_->incoming().CopyPayload(packet, 0, bytes);
  const auto header = std::bit_cast<PipeHeader>(bytes);
  const uint32_t type = header.type.value();
  const size_t data_bytes = header.data_bytes.value();
  const size_t space_bytes = packet.payload_bytes - sizeof(PipeHeader);

  const bool ignored = IsIgnored(type);
  if (!ignored && type != static_cast<uint32_t>(PipeMessageType::kData)) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: message type ", type, " is unknown"));
  }
  if (data_bytes > space_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: message says ", data_bytes,
                                                   " bytes of data; its packet has ", space_bytes));
  }
  if (ignored) return kIgnored;
  if (data_bytes > buffer_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("pipe: message of ", data_bytes,
                                                   " bytes; at most ", buffer_bytes, " are taken"));
  }
  return data_bytes;
}

absl::StatusOr<std::optional<std::span<std::byte>>> MessagePipe::Read(std::span<std::byte> buffer) {
  IncomingRing& ring = channel_->incoming();
  for (int skipped = 0; skipped < kIgnoredPerReadMax; ++skipped) {
    const auto packet = ring.Peek();
    if (!packet.ok()) return packet.status();
    if (!packet->has_value()) break;
    ring.Mask();
    const auto data_bytes = ParseHeader(**packet, buffer.size());
    if (!data_bytes.ok()) return data_bytes.status();
    if (*data_bytes != kIgnored) {
      const std::span<std::byte> message = buffer.first(*data_bytes);
      ring.CopyPayload(**packet, sizeof(PipeHeader), message);
      ring.Advance(**packet);
      messages_unconsumed_ = true;
      return message;
    }
    ring.Advance(**packet);
    ++ignored_messages_;
  }
  // What was skipped needs no answer before its space goes back, unless it
  // stands behind a message that does.
  if (!messages_unconsumed_) Consume();
  return std::nullopt;
}

void MessagePipe::Consume() {
  messages_unconsumed_ = false;
  if (channel_->incoming().Consume()) channel_->SignalPeer();
}

absl::StatusOr<std::optional<MessagePipe::Space>> MessagePipe::Reserve(size_t bytes) {
  if (bytes > max_message_bytes()) std::abort();
  OutgoingRing& ring = channel_->outgoing();
  const absl::StatusOr<bool> fits = ring.Reserve(sizeof(PipeHeader) + bytes);
  if (!fits.ok()) return fits.status();
  if (!*fits) return std::nullopt;
  ring.ClearSpaceRequest();
  Space space;
  space.piece_count = ring.Pieces(sizeof(PipeHeader), bytes, space.pieces);
  space.bytes = bytes;
  return space;
}

void MessagePipe::Send(size_t bytes) {
  OutgoingRing& ring = channel_->outgoing();
  ring.CopyIn(0, DataHeader(bytes));
  ring.Commit(sizeof(PipeHeader) + bytes);
  if (ring.Publish()) channel_->SignalPeer();
}

absl::StatusOr<bool> MessagePipe::Write(std::span<const std::byte> message) {
  const auto space = Reserve(message.size());
  if (!space.ok()) return space.status();
  if (!space->has_value()) return false;
  channel_->outgoing().CopyIn(sizeof(PipeHeader), message);
  Send(message.size());
  return true;
}

absl::StatusOr<bool> MessagePipe::ArmRead() { return channel_->incoming().Arm(); }

absl::StatusOr<bool> MessagePipe::ArmWrite(size_t bytes) {
  if (bytes > max_message_bytes()) std::abort();
  return channel_->outgoing().RequestSpace(sizeof(PipeHeader) + bytes);
}

void MessagePipe::DisarmWrite() { channel_->outgoing().ClearSpaceRequest(); }

}  // namespace vmbfs::hyperv
