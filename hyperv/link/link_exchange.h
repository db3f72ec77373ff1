// Requests and replies over one connection, in both directions: what the two
// levels of the link share besides guest memory.
//
// Trust: replies are the VMM's. One that answers no request of ours, or is
// malformed, is a violation.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_connection.h"
#include "hyperv/link/link_connection_options.h"
#include "hyperv/spin/spinner.h"

namespace vmbfs::hyperv {

// What all connections of a link share.
struct LinkShared {
  std::function<void(const ChannelDevice&, const absl::Status&)> on_fault;
  std::function<void(const ChannelDevice&, const absl::Status&)> on_open_refused;
  LinkConnectionOptions connection;
  GuestMemoryOptions memory;
  bool monitored = false;      // what is offered
  Spinner* spinner = nullptr;  // of the executor's thread; null: channels sleep at once
  uint64_t posts = 0;
  uint64_t frames_received = 0;
  uint64_t frames_refused = 0;
  uint64_t monitor_polls = 0;
  uint64_t monitor_signals = 0;
  std::string last_error;
};

// Thread safety: `executor`, which runs one thing at a time.
// Bounds: kPendingMax requests to the VMM; see LinkConnection.
// Errors: what ends the connection goes to `on_failure`, in a turn of its own.
class LinkExchange : public std::enable_shared_from_this<LinkExchange> {
 public:
  static constexpr size_t kPendingMax = 16384;

  // Takes the reply to a request: OK, or the VMM's refusal. Its descriptors and
  // payload are in `frame`; they have the numbers and size of the type's rule.
  // Returns a violation, or OK.
  using OnReply = std::function<absl::Status(const absl::Status& result, LinkFrame& frame)>;

  LinkExchange(const boost::asio::any_io_executor& executor, std::shared_ptr<LinkShared> shared,
               std::shared_ptr<LinkConnection> connection,
               std::function<void(const absl::Status&)> on_failure);

  const boost::asio::any_io_executor& executor() const { return executor_; }
  LinkShared& shared() const { return *shared_; }
  LinkConnection& connection() const { return *connection_; }

  // Whether few enough frames wait to be sent.
  bool HasRoom() const { return connection_->HasRoom(); }
  void Send(std::vector<std::byte> frame, UniqueFd descriptor = {}) {
    connection_->Send(std::move(frame), std::move(descriptor));
  }

  // The seq of a new request of ours; `on_reply` is called once, unless the
  // connection ends first.
  uint64_t Expect(LinkType type, OnReply on_reply);
  // A seq for a frame that nobody answers.
  uint64_t NextSeq() { return next_seq_++; }
  // Returns a violation, or OK.
  absl::Status HandleReply(LinkFrame& frame);

  // Answers to the VMM's requests. Acknowledge does nothing when no answer is
  // wanted; Refuse always answers.
  void Acknowledge(const LinkHeader& header);
  void Refuse(const LinkHeader& header, LinkError code, const std::string& reason);

  // For the status.
  void NoteError(const std::string& reason);

  // `action`, which does nothing once the connection has ended.
  std::function<void()> Guarded(std::function<void()> action);
  // Runs `action` in a turn of its own, unless the connection ends first.
  void Later(std::function<void()> action);
  void FailLater(const absl::Status& reason);

  // Nothing is sent, received or called any more.
  void Close();

 private:
  struct Pending {
    LinkType type{};
    OnReply on_reply;
  };

  const boost::asio::any_io_executor executor_;
  const std::shared_ptr<LinkShared> shared_;
  const std::shared_ptr<LinkConnection> connection_;
  const std::function<void(const absl::Status&)> on_failure_;
  bool closed_ = false;
  uint64_t next_seq_ = 1;
  std::map<uint64_t, Pending> pending_;
};

}  // namespace vmbfs::hyperv
