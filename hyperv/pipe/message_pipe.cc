#include "hyperv/pipe/message_pipe.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/pipe/pipe_packet.h"

namespace vmbfs::hyperv {
namespace {

using PipeHeaderBytes = std::array<std::byte, sizeof(PipeHeader)>;

constexpr uint32_t Number(PipeMessageType type) { return static_cast<uint32_t>(type); }

PipeHeaderBytes Header(PipeMessageType type, size_t data_bytes) {
  PipeHeader header;
  header.type = Number(type);
  header.data_bytes = static_cast<uint32_t>(data_bytes);
  return std::bit_cast<PipeHeaderBytes>(header);
}

bool IsData(const PipeHeader& header) {
  return header.type.value() == Number(PipeMessageType::kData);
}

}  // namespace

MessagePipe::MessagePipe(std::unique_ptr<Channel> channel, GpaDirect gpa_direct)
    : channel_(std::move(channel)), gpa_direct_(gpa_direct) {}

size_t MessagePipe::max_message_bytes() const {
  return std::min(kPipeDataBytesMax, channel_->outgoing().payload_bytes_max() - sizeof(PipeHeader));
}

absl::StatusOr<PipeHeader> MessagePipe::ParseHeader(const PacketView& packet,
                                                    size_t buffer_bytes) const {
  absl::StatusOr<PipeHeader> header = ReadPipeHeader(channel_->incoming(), packet);
  if (!header.ok()) return header;
  const uint32_t type = header->type.value();
  const size_t data_bytes = header->data_bytes.value();
  if (!IsData(*header) && (type < Number(PipeMessageType::kSetUpGpaDirect) ||
                           type > Number(PipeMessageType::kIndicationComplete))) {
    return UnknownPipeMessageType(type);
  }
  if (absl::Status status = CheckPipeDataBytes(packet, data_bytes); !status.ok()) return status;
  const size_t taken_bytes_max = IsData(*header) ? buffer_bytes : kPipeDataBytesMax;
  if (data_bytes > taken_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat(
        "pipe: message of ", data_bytes, " bytes; at most ", taken_bytes_max, " are taken"));
  }
  return header;
}

absl::Status MessagePipe::HandleOther(const PacketView& packet, const PipeHeader& header) {
  const auto type = static_cast<PipeMessageType>(header.type.value());
  if (gpa_direct_ == GpaDirect::kIgnored || type == PipeMessageType::kIndicationComplete) {
    ++ignored_messages_;
    return absl::OkStatus();
  }
  std::array<std::byte, kPipeDataBytesMax> buffer;
  const std::span<std::byte> data = std::span(buffer).first(header.data_bytes.value());
  channel_->incoming().CopyPayload(packet, sizeof(PipeHeader), data);
  return type == PipeMessageType::kSetUpGpaDirect ? registrations_.SetUp(data)
                                                  : registrations_.TearDown(data);
}

absl::StatusOr<std::optional<std::span<std::byte>>> MessagePipe::Read(std::span<std::byte> buffer) {
  IncomingRing& ring = channel_->incoming();
  for (int others = 0; others < kOthersPerReadMax; ++others) {
    const auto packet = ring.Peek();
    if (!packet.ok()) return packet.status();
    if (!packet->has_value()) break;
    ring.Mask();
    const auto header = ParseHeader(**packet, buffer.size());
    if (!header.ok()) return header.status();
    if (IsData(*header)) {
      const std::span<std::byte> message = buffer.first(header->data_bytes.value());
      ring.CopyPayload(**packet, sizeof(PipeHeader), message);
      ring.Advance(**packet);
      messages_unconsumed_ = true;
      return message;
    }
    if (absl::Status status = HandleOther(**packet, *header); !status.ok()) return status;
    ring.Advance(**packet);
  }
  // The others need no answer before their space goes back, unless they stand
  // behind a message that does.
  if (!messages_unconsumed_) Consume();
  return std::nullopt;
}

absl::StatusOr<bool> MessagePipe::HasInput() {
  const auto packet = channel_->incoming().Peek();
  if (!packet.ok()) return packet.status();
  return packet->has_value();
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
  ring.CopyIn(0, Header(PipeMessageType::kData, bytes));
  ring.Commit(sizeof(PipeHeader) + bytes);
  signal_owed_ = ring.Publish() || signal_owed_;
  SignalOwed();
}

void MessagePipe::SignalOwed() {
  if (std::exchange(signal_owed_, false)) channel_->SignalPeer();
}

absl::StatusOr<bool> MessagePipe::Write(std::span<const std::byte> message) {
  const auto space = Reserve(message.size());
  if (!space.ok()) return space.status();
  if (!space->has_value()) return false;
  channel_->outgoing().CopyIn(sizeof(PipeHeader), message);
  Send(message.size());
  return true;
}

absl::StatusOr<bool> MessagePipe::WriteDeferred(PipeMessageType type,
                                                std::span<const std::byte> data) {
  const auto space = Reserve(data.size());
  if (!space.ok()) return space.status();
  if (!space->has_value()) return false;
  OutgoingRing& ring = channel_->outgoing();
  ring.CopyIn(0, Header(type, data.size()));
  ring.CopyIn(sizeof(PipeHeader), data);
  ring.Commit(sizeof(PipeHeader) + data.size());
  signal_owed_ = ring.Publish() || signal_owed_;
  return true;
}

absl::StatusOr<bool> MessagePipe::ArmRead() {
  SignalOwed();
  return channel_->incoming().Arm();
}

absl::StatusOr<bool> MessagePipe::ArmWrite(size_t bytes) {
  if (bytes > max_message_bytes()) std::abort();
  SignalOwed();
  return channel_->outgoing().RequestSpace(sizeof(PipeHeader) + bytes);
}

void MessagePipe::DisarmWrite() { channel_->outgoing().ClearSpaceRequest(); }

}  // namespace vmbfs::hyperv
