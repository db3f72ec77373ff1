// One accepted stream socket: bytes and descriptors to frames, and back.
//
// Trust: the peer's bytes; headers, sizes and where descriptors ride are
// checked here, payloads are not. Format: README.md.

#pragma once

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_connection_options.h"

namespace vmbfs::hyperv {

// Thread safety: `executor`, which runs one thing at a time, for all calls and
// callbacks.
// Ownership: the handler is held weakly; nothing is called after Close.
// Bounds: one frame is being received; at most kFramesPerTurn are handed on
// before others on the executor have their turn. While kOutputFramesHigh
// frames wait to be sent nothing is received; kOutputFramesMax break the
// connection, and so do a peer's silence (LinkConnectionOptions) and
// descriptors that the closer has no room for.
class LinkConnection : public std::enable_shared_from_this<LinkConnection> {
 public:
  static constexpr size_t kOutputFramesHigh = 64;
  static constexpr size_t kOutputFramesMax = 8192;
  static constexpr int kFramesPerTurn = 16;

  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void OnFrame(LinkFrame frame) = 0;
    // The output was full, and HasRoom again.
    virtual void OnRoom() = 0;
    // Nothing more will come. Called once, never from within Send.
    // kInvalidArgument: the peer broke the rules; anything else: it is gone.
    virtual void OnBroken(const absl::Status& reason) = 0;
  };

  // `socket` is connected. Errors: kInternal when it cannot be waited for.
  static absl::StatusOr<std::shared_ptr<LinkConnection>> Create(
      const boost::asio::any_io_executor& executor, UniqueFd socket,
      const LinkConnectionOptions& options);
  LinkConnection(const boost::asio::any_io_executor& executor,
                 const LinkConnectionOptions& options);
  ~LinkConnection();

  // Begins to receive.
  void Start(std::weak_ptr<Handler> handler);

  // Sends a whole frame, now or when the socket has room. `descriptor` rides
  // with its first byte.
  void Send(std::vector<std::byte> frame, UniqueFd descriptor = {});

  // Whether fewer than kOutputFramesHigh frames wait.
  bool HasRoom() const { return output_.size() < kOutputFramesHigh; }

  // Whether the peer has closed its end, though perhaps not all it sent has been
  // received.
  bool PeerIsGone();

  // Drops what could not be sent yet and closes the socket.
  void Close();

 private:
  enum class Progress { kMore, kWouldBlock, kBroken };
  struct Output {
    std::vector<std::byte> bytes;
    size_t sent = 0;
    UniqueFd descriptor;
  };

  void WaitReadable();
  void WaitWritable();
  void WaitFirstFrame();
  void WaitOutput();
  void Receive();
  Progress ReceiveSome();
  Progress TakeHeader();
  void TakeFrame();
  absl::StatusOr<size_t> ReceiveBytes(std::span<std::byte> to);
  void Flush();
  absl::StatusOr<size_t> SendBytes(Output& output);
  void Break(const absl::Status& reason);
  void BreakLater(const absl::Status& reason);

  boost::asio::any_io_executor executor_;
  const LinkConnectionOptions options_;
  boost::asio::local::stream_protocol::socket socket_;
  boost::asio::steady_timer first_frame_timer_;
  boost::asio::steady_timer output_timer_;
  std::weak_ptr<Handler> handler_;
  bool open_ = true;     // until Close
  bool broken_ = false;  // nothing more is received

  std::array<std::byte, kLinkHeaderBytes> header_bytes_{};
  size_t header_received_ = 0;
  size_t payload_received_ = 0;
  LinkFrame frame_;  // its header is valid once all of it was received
  bool first_frame_came_ = false;
  bool reading_held_ = false;

  std::deque<Output> output_;
  bool wait_writable_ = false;
};

}  // namespace vmbfs::hyperv
