// One connection of a VMM: what both levels of the link have, and the level that
// HELLO chose.
//
// Trust: frames are the VMM's; those that break the rules end the connection
// with the reason. Format: README.md.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_connection.h"
#include "hyperv/link/link_exchange.h"
#include "hyperv/link/link_level.h"
#include "hyperv/link/link_server.h"

namespace vmbfs::hyperv {

// HELLO, guest memory and the run state; all else is the level's.
//
// Thread safety: `executor`, which runs one thing at a time.
// Ownership: devices are shared, and closed when it ends.
// Bounds: see LinkExchange, LinkConnection, GuestMemory, SynicLevel, ChannelLevel.
class LinkSession final : public LinkConnection::Handler,
                          public std::enable_shared_from_this<LinkSession> {
 public:
  // Begins to serve a connected socket. `on_end` is called once, later, after
  // the session ended.
  // Errors: kInternal when the socket cannot be waited for.
  static absl::StatusOr<std::shared_ptr<LinkSession>> Start(
      const boost::asio::any_io_executor& executor, UniqueFd socket,
      std::shared_ptr<LinkShared> shared, std::vector<std::shared_ptr<LinkDevice>> devices,
      std::function<void()> on_end);
  LinkSession(const GuestMemoryOptions& memory, std::function<void()> on_end);

  // Closes all channels and the socket. Not from within a call of a device.
  void End(const absl::Status& reason);

  // Whether the VMM has hung up, which may not have been noticed yet.
  bool PeerIsGone() const { return exchange_->connection().PeerIsGone(); }

  // As LinkServer's.
  absl::Status AddDevice(std::shared_ptr<LinkDevice> device);
  void RemoveDevice(const LinkDevice& device);
  bool IsOpen(const LinkDevice& device) const;
  // Fills in what belongs to a connection.
  void Describe(LinkStatus& status) const;

  // LinkConnection::Handler
  void OnFrame(LinkFrame frame) override;
  void OnRoom() override;
  void OnBroken(const absl::Status& reason) override;

 private:
  // Handlers of frames; an error is a violation and ends the connection.
  absl::Status HandleRequest(LinkFrame& frame);
  absl::Status HandleHello(const LinkFrame& frame);
  absl::Status HandleMemAdd(LinkFrame& frame);
  absl::Status HandleMemDel(const LinkFrame& frame);
  absl::Status HandleRun(const LinkFrame& frame);  // START, PAUSE, RESUME
  absl::Status HandleReset(const LinkFrame& frame);
  absl::Status NotSupported(const LinkHeader& header);
  void Violated(const LinkHeader* header, const absl::Status& reason);

  const std::function<void()> on_end_;
  bool ended_ = false;
  bool started_ = false;
  bool paused_ = false;
  std::string label_;  // escaped
  std::vector<std::shared_ptr<LinkDevice>> devices_;

  // Each is used by those below it.
  std::shared_ptr<LinkExchange> exchange_;
  GuestMemory memory_;
  std::unique_ptr<LinkLevel> level_;  // from HELLO to the end
};

}  // namespace vmbfs::hyperv
