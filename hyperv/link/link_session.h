// One connection of a VMM: its frames, and what they drive: guest memory,
// SynIC, bus and channels.
//
// Trust: frames are the VMM's; those that break the rules end the connection
// with the reason. Format: README.md.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/bus/bus.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_connection.h"
#include "hyperv/link/link_server.h"
#include "hyperv/link/synic.h"

namespace vmbfs::hyperv {

// What all connections of a link share.
struct LinkShared {
  std::function<void(const ChannelDevice&, const absl::Status&)> on_fault;
  std::function<void(const ChannelDevice&, const absl::Status&)> on_open_refused;
  LinkConnectionOptions connection;
  GuestMemoryOptions memory;
  uint64_t posts = 0;
  uint64_t frames_received = 0;
  uint64_t frames_refused = 0;
  std::string last_error;
};

// Thread safety: `executor`, which runs one thing at a time.
// Ownership: devices are shared, and closed when it ends.
// Bounds: kLinkPostsMax waiting posts, kPendingMax requests to the VMM; see
// LinkConnection, Synic, GuestMemory.
class LinkSession final : public BusPort,
                          public LinkConnection::Handler,
                          public LinkChannels::Port,
                          public std::enable_shared_from_this<LinkSession> {
 public:
  static constexpr size_t kPendingMax = 16384;

  // Begins to serve a connected socket. `on_end` is called once, later, after
  // the session ended.
  // Errors: kInternal when the socket cannot be waited for.
  static absl::StatusOr<std::shared_ptr<LinkSession>> Start(
      const boost::asio::any_io_executor& executor, UniqueFd socket,
      std::shared_ptr<LinkShared> shared, std::vector<std::shared_ptr<LinkDevice>> devices,
      std::function<void()> on_end);
  LinkSession(const boost::asio::any_io_executor& executor, std::shared_ptr<LinkShared> shared,
              std::function<void()> on_end);

  // Closes all channels and the socket. Not from within a call of a device.
  void End(const absl::Status& reason);

  // Whether the VMM has hung up, which may not have been noticed yet.
  bool PeerIsGone() const { return connection_->PeerIsGone(); }

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

  // BusPort
  void SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void OpenChannel(const OpenRequest& request) override;
  void CloseChannel(OfferId offer) override;
  void ModifyChannel(OfferId offer, uint32_t target_vp) override;
  void OfferReleased(OfferId offer) override;
  void DropQueuedMessages() override;

  // LinkChannels::Port
  void SetConnection(uint32_t connection_id, UniqueFd doorbell,
                     std::function<void(const absl::Status&)> done) override;
  void ClearConnection(uint32_t connection_id) override;
  void Faulted(const ChannelDevice& device, const absl::Status& reason) override;
  void OpenDone(OfferId offer, const absl::Status& result) override;
  void CloseDone(OfferId offer) override;
  void ModifyDone(OfferId offer, const absl::Status& result) override;

 private:
  using Descriptors = std::vector<UniqueFd>;
  using OnReply = std::function<void(const absl::Status&, Descriptors)>;
  struct Pending {
    LinkType type{};
    OnReply on_reply;
  };

  // Handlers of frames; an error is a violation and ends the connection.
  absl::Status HandleRequest(LinkFrame& frame);
  absl::Status HandleReply(LinkFrame& frame);
  absl::Status HandleHello(const LinkFrame& frame);
  absl::Status HandleMemAdd(LinkFrame& frame);
  absl::Status HandleMemDel(const LinkFrame& frame);
  absl::Status HandleSynic(const LinkFrame& frame);
  absl::Status HandlePost(const LinkFrame& frame);
  absl::Status HandleSignal(const LinkFrame& frame);
  absl::Status HandleEom(const LinkFrame& frame);
  absl::Status HandleRun(const LinkFrame& frame);  // START, PAUSE, RESUME
  absl::Status HandleReset(const LinkFrame& frame);

  absl::Status CheckVp(uint32_t vp) const;
  void Acknowledge(const LinkHeader& header);
  void Refuse(const LinkHeader& header, LinkError code, const std::string& reason);
  void Violated(const LinkHeader* header, const absl::Status& reason);
  void OpenRefused(OfferId refused, const absl::Status& reason);
  void NoteError(const std::string& reason);
  uint64_t Expect(LinkType type, OnReply on_reply);
  void RequestSint(uint32_t vp, uint8_t sint);
  absl::Status TakeSint(uint32_t vp, uint8_t sint, Descriptors descriptors);
  absl::Status OfferDevice(const std::shared_ptr<LinkDevice>& device);
  void ConsumePosts();
  void Later(std::function<void(LinkSession&)> action);
  bool running() const { return started_ && !paused_; }

  const boost::asio::any_io_executor executor_;
  const std::shared_ptr<LinkShared> shared_;
  const std::function<void()> on_end_;
  std::shared_ptr<LinkConnection> connection_;
  bool ended_ = false;
  bool started_ = false;
  bool paused_ = false;
  std::string label_;  // escaped

  std::vector<std::shared_ptr<LinkDevice>> devices_;
  std::map<const LinkDevice*, OfferId> offers_;
  std::deque<LinkPost> posts_;  // not yet consumed
  std::optional<uint64_t> last_post_seq_;
  uint64_t next_seq_ = 1;
  std::map<uint64_t, Pending> pending_;

  // From HELLO to the end, but for the memory.
  GuestMemory memory_;
  std::unique_ptr<Synic> synic_;
  std::shared_ptr<LinkChannels> channels_;
  std::unique_ptr<Bus> bus_;
};

}  // namespace vmbfs::hyperv
