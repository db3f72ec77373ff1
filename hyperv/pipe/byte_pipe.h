// A stream of bytes over a channel: the VMBus pipe protocol in byte mode.
//
// Trust: what is read is the peer's. A message's header is read once, when it
// is first seen; how much of it was read is remembered here, whatever the peer
// writes over it. Format: pipe_format.h, shared/specs/vmbus.md section 5.2.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel.h"
#include "hyperv/packet/packet.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs::hyperv {

// Reads and writes bytes on a channel it owns. Boundaries of messages mean
// nothing: a write may be split, a read may join.
//
// A message that was read in part is marked so in the ring (PARTIAL), and an
// end of stream stays there until it is told. So another BytePipe over the same
// pages, after a restart, goes on exactly where this one stopped.
//
// Thread safety: one strand.
// Bounds: a call moves at most its buffer's bytes; none allocates but on errors.
// Errors: kInvalidArgument is the peer's fault: the channel is done.
class BytePipe {
 public:
  // Data of one message we write; the peer's may have kPipeDataBytesMax.
  static constexpr size_t kChunkBytesMax = 2048;

  explicit BytePipe(std::unique_ptr<Channel> channel);

  // Copies the next bytes into `buffer`, gives their space back to the peer, and
  // returns how many they are: as many as are there and fit. nullopt when none
  // are there now. 0 at the end of the stream: once, after all bytes before it.
  // What a peer sends behind its end is the next stream.
  // REQUIRES: buffer is not empty.
  //
  // Errors: kInvalidArgument when the peer broke the ring, packet or pipe
  // format. Bytes ahead of the broken packet are returned first.
  absl::StatusOr<std::optional<size_t>> Read(std::span<std::byte> buffer);

  // Sends from the front of `bytes` as much as there is room for, and returns
  // how much that is.
  //
  // Errors: kInvalidArgument when the peer broke the ring's indices.
  absl::StatusOr<size_t> Write(std::span<const std::byte> bytes);

  // Tells the peer that no more bytes come. false when the ring has no room now.
  //
  // Errors: as Write.
  absl::StatusOr<bool> WriteEndOfStream();

  // Before sleeping: asks to be signalled when something arrives. Returns true
  // when Read has something already.
  //
  // Errors: as Write.
  absl::StatusOr<bool> ArmRead();

  // After a Write that took too little (or, with 0, WriteEndOfStream): asks to
  // be signalled when the next of `bytes` fit. Returns true when they do already.
  //
  // Errors: as Write.
  absl::StatusOr<bool> ArmWrite(size_t bytes);

  Channel& channel() { return *channel_; }
  const Channel& channel() const { return *channel_; }

 private:
  // The message at the ring's cursor, from its first sight to its end.
  struct Message {
    PacketView packet;
    size_t total_bytes = 0;     // 0: end of stream
    size_t consumed_bytes = 0;  // below total_bytes, but for an end of stream
  };

  // Looks at the next message; false when there is none.
  absl::StatusOr<bool> BeginMessage();
  static absl::StatusOr<Message> Parse(const PacketView& packet, const PipeHeader& header);
  // Moves bytes of the message into `to`; returns how many.
  size_t Take(std::span<std::byte> to);
  void MarkPartial();
  void EndMessage();
  void Consume();
  size_t chunk_bytes_max() const;
  absl::StatusOr<bool> Commit(std::span<const std::byte> chunk);
  void Publish();

  std::unique_ptr<Channel> channel_;
  std::optional<Message> message_;
};

}  // namespace vmbfs::hyperv
