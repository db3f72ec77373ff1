// One VM composed: its link, the bus behind it, and its vmbfs devices.

#pragma once

#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/resolver/resolver.h"
#include "core/vm/data_plane.h"
#include "core/vm/device_kind.h"
#include "core/vm/strand_answer.h"
#include "core/vm/vm_options.h"
#include "core/vmbfs/vmbfs_device.h"
#include "hyperv/link/link_server.h"

namespace vmbfs {

struct VmDeviceStatus {
  DeviceKind kind{};
  BackingSource wanted;                 // what the next open gets
  std::optional<BackingSource> active;  // what the open channel reads
  VmbfsDeviceStatus device;
  hyperv::LinkChannelStatus channel;  // its `device` is null
};

struct VmStatus {
  hyperv::LinkStatus link;              // its `channels` are in `devices`
  std::vector<VmDeviceStatus> devices;  // imc, then boot
};

// The answer of work that has no result.
struct Done {};

// Everything of it lives on one data-plane thread, the VM's strand. The methods
// are for control threads: each posts to the strand, in the order of the calls,
// and returns at once with an answer that may be waited for, or left alone.
//
// Thread safety: any thread but the strand, except Listen.
// Ownership: the last owner may be any such thread: what lives on the strand is
// stopped and destroyed there.
class Vm {
 public:
  // REQUIRES: `data_plane` outlives the Vm, and `pool` is joined before that is
  // destroyed, and destroyed after it.
  Vm(std::string name, DataPlane& data_plane, boost::asio::thread_pool& pool,
     const VmbfsDeviceOptions& devices = {});
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  const std::string& name() const { return name_; }

  // Makes the link's socket, on the calling thread. VMMs that connect wait until
  // Serve. Errors: as LinkServer::Listen.
  // REQUIRES: no other method was called before.
  absl::Status Listen(const std::string& socket_path, const VmOptions& options);

  // Begins to accept VMMs.
  StrandAnswer<Done> Serve();

  // Ends the connection and the service on all devices, and unlinks the socket.
  StrandAnswer<Done> Stop();

  // Offers a device. Errors: kAlreadyExists, kResourceExhausted.
  StrandAnswer<absl::Status> Attach(DeviceKind kind, LiveBacking backing);

  // Changes what the next open of the device gets. Errors: kNotFound.
  StrandAnswer<absl::Status> SetBacking(DeviceKind kind, LiveBacking backing);

  // Unless a guest has one of the devices open: refuses further opens of all of
  // them until AllowOpen. Answers with the ones that are open. Dropped when late.
  StrandAnswer<std::vector<DeviceKind>> RefuseOpen(std::vector<DeviceKind> kinds);
  StrandAnswer<Done> AllowOpen(std::vector<DeviceKind> kinds);

  // Revokes a device's offer, whether a guest has it open or not.
  // Errors: kNotFound.
  StrandAnswer<absl::Status> Detach(DeviceKind kind);

  // Dropped when late.
  StrandAnswer<VmStatus> Status();

 private:
  class Core;

  const std::string name_;
  const DataPlane::Seat seat_;
  std::shared_ptr<Core> core_;  // its content is the strand's
};

}  // namespace vmbfs
