// Whole messages over a channel: the VMBus pipe protocol in message mode.
//
// Trust: what is read is the peer's; sizes are checked here, the message's
// content is the caller's to parse. Format: pipe_format.h,
// shared/specs/vmbus.md section 5.

#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel.h"
#include "hyperv/pipe/gpa_direct_table.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs::hyperv {

// What becomes of GPA-direct set-ups and tear-downs. Only guests send them.
enum class GpaDirect {
  kIgnored,  // skipped and counted, as whatever a reader has no use for
  kServed,   // kept in a table
};

// Reads and writes pipe messages on a channel it owns.
//
// Thread safety: one strand.
// Bounds: a message holds at most max_message_bytes(); registrations as
// GpaDirectTable says. Only a Read that meets a set-up allocates.
class MessagePipe {
 public:
  // Pieces of ring memory that together take one outgoing message. The peer
  // may overwrite them at any time; nothing is read back.
  struct Space {
    // A message of 16,384 bytes spans at most 5 pages, and one more where the
    // ring wraps.
    static constexpr size_t kPiecesMax = 6;
    std::array<iovec, kPiecesMax> pieces;
    size_t piece_count = 0;
    size_t bytes = 0;  // sum of the pieces

    std::span<const iovec> span() const { return {pieces.data(), piece_count}; }
  };

  explicit MessagePipe(std::unique_ptr<Channel> channel,
                       GpaDirect gpa_direct = GpaDirect::kIgnored);

  // Messages that are not DATA which one Read handles or skips.
  static constexpr int kOthersPerReadMax = 64;

  // The largest message both the protocol (16,384) and the outgoing ring allow.
  size_t max_message_bytes() const;

  // Copies the next DATA message into `buffer` and returns the part of it that
  // the message fills (it may be empty); nullopt when no message is there. The
  // message stays in the ring until Consume. Several may be read before one
  // Consume.
  //
  // Set-ups and tear-downs ahead of it have had their effect on gpa_direct().
  // A guest sends them without a signal of their own: they are seen with the
  // next request.
  //
  // nullopt is also what a peer gets that sends more than kOthersPerReadMax
  // other messages in a row: ArmRead, which is due before sleeping, tells that
  // more is there.
  //
  // Errors (the message is still the next one):
  //   kInvalidArgument    the peer broke the ring, packet or pipe format, sent
  //                       a malformed set-up or tear-down, or a message larger
  //                       than `buffer`.
  absl::StatusOr<std::optional<std::span<std::byte>>> Read(std::span<std::byte> buffer);

  // Whether Read would find anything: a message, or what comes ahead of one.
  // Errors: kInvalidArgument when the peer broke the ring or packet format.
  absl::StatusOr<bool> HasInput();

  // Gives the ring space of all messages read so far back to the peer, and
  // signals it when it waits for that space.
  void Consume();

  // Room for a message of `bytes` in the outgoing ring; nullopt when the ring
  // has too little room now. Nothing is visible to the peer before Send. A
  // reservation that is not sent is replaced by the next one.
  // REQUIRES: bytes <= max_message_bytes().
  //
  // Errors: kInvalidArgument when the peer broke the ring's indices.
  absl::StatusOr<std::optional<Space>> Reserve(size_t bytes);

  // Publishes the reserved message with its first `bytes` bytes, and signals
  // the peer if the ring's rules say so.
  // REQUIRES: an open reservation of at least `bytes`.
  void Send(size_t bytes);

  // Copies `message` out whole. false when the ring has no room now.
  // REQUIRES and Errors: as Reserve.
  absl::StatusOr<bool> Write(std::span<const std::byte> message);

  // A guest's set-up or tear-down (pipe_format.h), as the firmware sends them: the
  // signal it may call for is owed, and given with the next message or before
  // sleeping. false when the ring has no room now.
  // REQUIRES: data.size() <= max_message_bytes(). Errors: as Reserve.
  absl::StatusOr<bool> WriteDeferred(PipeMessageType type, std::span<const std::byte> data);

  // Before sleeping: asks to be signalled when a message arrives. Returns true
  // when one is there already: read it instead of sleeping.
  // REQUIRES: Consume was called for what was read.
  //
  // Errors: kInvalidArgument when the peer broke the ring's indices.
  absl::StatusOr<bool> ArmRead();

  // After Reserve found no room: asks to be signalled when `bytes` fit. Returns
  // true when they fit already. A Reserve that succeeds ends the wait.
  // REQUIRES and Errors: as Reserve.
  absl::StatusOr<bool> ArmWrite(size_t bytes);

  // Forgets the wait for space that ArmWrite announced.
  void DisarmWrite();

  // Messages skipped by Read since the pipe was made.
  uint64_t ignored_messages() const { return ignored_messages_; }

  // What the guest has registered on this channel; nothing with kIgnored. Gone
  // with the pipe, whether or not it was torn down.
  const GpaDirectTable& gpa_direct() const { return registrations_; }

  Channel& channel() { return *channel_; }
  const Channel& channel() const { return *channel_; }

 private:
  void SignalOwed();
  // The header of the message in `packet`, of a known type, its size checked.
  absl::StatusOr<PipeHeader> ParseHeader(const PacketView& packet, size_t buffer_bytes) const;
  // Does what a message that is not DATA asks for.
  absl::Status HandleOther(const PacketView& packet, const PipeHeader& header);

  std::unique_ptr<Channel> channel_;
  GpaDirect gpa_direct_;
  GpaDirectTable registrations_;
  bool messages_unconsumed_ = false;
  bool signal_owed_ = false;
  uint64_t ignored_messages_ = 0;
};

}  // namespace vmbfs::hyperv
