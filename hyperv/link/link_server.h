// The Unix socket over which a VMM hands us one VM's VMBus, and everything
// behind it: guest memory, SynIC, bus, channels.
//
// Trust: the VMM's frames and descriptors are checked here; what the guest
// posts and writes is checked by Bus, the rings and the devices.
// Format: link_format.h, README.md.

#pragma once

#include <sys/types.h>

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/bus/bus.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/link/link_connection_options.h"
#include "hyperv/spin/spinner.h"

namespace vmbfs::hyperv {

struct LinkOptions {
  std::string socket_path;         // at most kSocketPathBytesMax bytes
  std::optional<uid_t> owner_uid;  // the VMM's user; ours when empty
  // Called on the strand each time service on a device's channel ends by a
  // fault, with its reason. May not call back into the LinkServer. May be empty.
  std::function<void(const ChannelDevice&, const absl::Status&)> on_fault;
  // The same for each open that is refused.
  std::function<void(const ChannelDevice&, const absl::Status&)> on_open_refused;
  LinkConnectionOptions connection;
  // Guest memory that its VMM can take away at any moment is accepted too.
  bool allow_unsealed_memory = false;
  // Channels are offered as monitored: guests may signal them through their monitor
  // page, which is then read every millisecond while one is open.
  bool monitored = false;
};

// sun_path holds 108 bytes with the terminating NUL.
inline constexpr size_t kSocketPathBytesMax = 107;

struct LinkChannelStatus {
  const ChannelDevice* device = nullptr;
  // As the bus has it; at the channel level the VMM has the bus: our state, its
  // id and processor. Meaningful while a VMM is connected.
  BusChannelStatus bus;
  bool open = false;       // the device holds the channel
  std::string fault;       // why service ended; empty: none
  uint64_t faults = 0;     // over the device's life on this link
  uint64_t doorbells = 0;  // guest signals seen
  uint64_t signals = 0;    // signals sent to the guest
};

struct LinkStatus {
  std::string socket_path;
  bool listening = false;
  bool connected = false;  // HELLO was answered
  std::string level;       // "synic", "channel"; empty when not connected
  std::string delivery;    // "direct", "mediated"; empty but at the SynIC level
  bool started = false;    // START was seen
  bool paused = false;
  std::string peer_label;  // escaped; a label, not an identity
  int64_t peer_pid = 0;
  uint64_t connections = 0;  // accepted over the link's life
  uint64_t connections_refused = 0;
  std::string last_error;  // of this or an earlier connection
  size_t memory_regions = 0;
  uint64_t memory_bytes = 0;
  uint64_t posts = 0;
  uint64_t frames_received = 0;
  uint64_t frames_refused = 0;
  uint64_t monitor_polls = 0;    // wake-ups to look into the guest's monitor page
  uint64_t monitor_signals = 0;  // signals found there
  std::optional<BusStatus> bus;  // while connected at the SynIC level
  std::vector<LinkChannelStatus> channels;
};

// Serves one VM's link socket: one VMM connection at a time, a second one is
// refused while the first lives.
//
// Thread safety: all calls on `strand`, an executor that runs one thing at a
// time. The destructor too; Stop must have been called before it.
// Ownership: devices are shared; the link lets go of one in Remove.
class LinkServer {
 public:
  // `spinner` is the one that runs the strand's thread, and outlives the link; null:
  // nobody spins, and channels sleep as soon as they have nothing to do.
  explicit LinkServer(boost::asio::any_io_executor strand, Spinner* spinner = nullptr);
  ~LinkServer();
  LinkServer(const LinkServer&) = delete;
  LinkServer& operator=(const LinkServer&) = delete;

  // Binds and listens (mode 0600, owned by options.owner_uid); does not accept
  // yet. A stale socket file is replaced. May block for a moment on the file
  // system; may be called from another thread as long as nothing else is.
  //
  // Errors:
  //   kInvalidArgument      the path is longer than kSocketPathBytesMax; the
  //                         message gives both lengths.
  //   kFailedPrecondition   another process listens there, or a file that is
  //                         no socket stands there.
  //   kPermissionDenied, kInternal  the system's own reason.
  absl::Status Listen(const LinkOptions& options);

  // Begins to accept. REQUIRES: Listen succeeded.
  void Start();

  // Closes the connection, all channels and the socket, and unlinks it.
  void Stop();

  // Offers `device` on this and later connections.
  // Errors: kAlreadyExists, kResourceExhausted as Bus::Offer.
  absl::Status Add(std::shared_ptr<ChannelDevice> device);

  // Whether the guest has the device's channel open (or is opening it).
  bool IsOpen(const ChannelDevice& device) const;

  // Refuses further opens of the device's channel, or allows them again.
  void SetOpenAllowed(const ChannelDevice& device, bool allowed);

  // Revokes the offer. On return the device is closed and no longer called.
  void Remove(const ChannelDevice& device);

  LinkStatus status() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace vmbfs::hyperv
