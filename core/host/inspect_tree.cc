#include "core/host/inspect_tree.h"

#include <unistd.h>

#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hyperv/guest_memory/mapping_budget.h"

namespace vmbfs {
namespace {

using inspect::Node;

// How deep things lie below the root.
constexpr size_t kVmLevel = 2;  // vms/NAME

void AddThread(Node& threads, const std::string& name, const DataPlane::ThreadStatus& status) {
  Node& thread = threads.AddFolder(name);
  thread.Add("spins", status.spin.spins);
  thread.Add("spins_found", status.spin.spins_found);
  thread.Add("spin_ns", status.spin.spin_ns);
  thread.Add("spin_window_ns", status.spin.window_ns);
  thread.Add("sleeps", status.spin.sleeps);
  thread.Add("wakeups", status.wakeups);
}

void AddDaemon(Node& root, const DaemonFacts& facts) {
  Node& daemon = root.AddFolder("daemon");
  daemon.Add("pid", int64_t{::getpid()});
  daemon.Add("uptime_s", facts.uptime_s);
  daemon.Add("state_dir", facts.state_dir);
  daemon.Add("data_plane_threads", uint64_t{facts.data_plane.size()});
  daemon.Add("spin_us", uint64_t{facts.spin_us});
  daemon.Add("spin_percent", uint64_t{facts.spin_percent});
  const auto& mappings = hyperv::MappingBudget::OfProcess();
  daemon.Add("memory_mappings", uint64_t{mappings.used()});
  daemon.Add("memory_mappings_max", uint64_t{mappings.max()});
  const auto& ring_mappings = hyperv::MappingBudget::OfRings();
  daemon.Add("ring_mappings", uint64_t{ring_mappings.used()});
  daemon.Add("ring_mappings_max", uint64_t{ring_mappings.max()});
  Node& threads = daemon.AddFolder("data_plane");
  for (const DataPlane::ThreadStatus& status : facts.data_plane) {
    AddThread(threads, absl::StrCat(threads.children.size()), status);
  }
}

void AddLink(Node& vm, const hyperv::LinkStatus& status) {
  Node& link = vm.AddFolder("link");
  link.Add("socket_path", status.socket_path);
  link.Add("listening", status.listening);
  link.Add("connected", status.connected);
  link.Add("level", status.level);
  link.Add("delivery", status.delivery);
  link.Add("started", status.started);
  link.Add("paused", status.paused);
  link.Add("peer_label", status.peer_label);
  link.Add("peer_pid", status.peer_pid);
  link.Add("connections", status.connections);
  link.Add("connections_refused", status.connections_refused);
  link.Add("last_error", status.last_error);
  link.Add("memory_regions", uint64_t{status.memory_regions});
  link.Add("memory_bytes", status.memory_bytes);
  link.Add("posts", status.posts);
  link.Add("frames_received", status.frames_received);
  link.Add("frames_refused", status.frames_refused);
  link.Add("monitor_polls", status.monitor_polls);
  link.Add("monitor_signals", status.monitor_signals);
}

void AddBus(Node& vm, const hyperv::LinkStatus& link) {
  Node& bus = vm.AddFolder("bus");
  const std::optional<hyperv::BusStatus>& status = link.bus;
  if (!status.has_value()) {
    bus.Add("state", link.connected ? "the VMM's own" : "no VMM");
    return;
  }
  bus.Add("state", status->state);
  bus.Add("version", status->version);
  bus.Add("features", uint64_t{status->features});
  bus.Add("target_vp", uint64_t{status->target_vp});
  bus.Add("offers_requested", status->offers_requested);
  bus.Add("client_id", status->client_id);
  bus.Add("parent_to_child_monitor_page_gpa", status->parent_to_child_monitor_page_gpa);
  bus.Add("child_to_parent_monitor_page_gpa", status->child_to_parent_monitor_page_gpa);
  bus.Add("paused", status->paused);
  bus.Add("messages_held", uint64_t{status->messages_held});
  bus.Add("messages_received", status->messages_received);
  bus.Add("messages_dropped", status->messages_dropped);
  bus.Add("messages_sent", status->messages_sent);
  bus.Add("last_drop_reason", status->last_drop_reason);
  bus.Add("gpadls", uint64_t{status->gpadl_count});
  bus.Add("gpadl_pages", uint64_t{status->gpadl_pages});
}

void AddChannel(Node& channels, const VmDeviceStatus& status) {
  Node& channel = channels.AddFolder(DeviceName(status.kind));
  channel.Add("channel_id", uint64_t{status.channel.bus.channel_id});
  channel.Add("state", status.channel.bus.state);
  channel.Add("target_vp", uint64_t{status.channel.bus.target_vp});
  channel.Add("connection_id", uint64_t{status.channel.bus.connection_id});
  channel.Add("event_flag", uint64_t{status.channel.bus.event_flag});
  if (const auto monitor_id = status.channel.bus.monitor_id; monitor_id.has_value()) {
    channel.Add("monitor_id", uint64_t{*monitor_id});
  }
  channel.Add("open", status.channel.open);
  channel.Add("fault", status.channel.fault);
  channel.Add("faults", status.channel.faults);
  channel.Add("doorbells", status.channel.doorbells);
  channel.Add("signals", status.channel.signals);
}

void AddDevice(Node& devices, const VmDeviceStatus& status) {
  const VmbfsDeviceStatus& of_device = status.device;
  Node& device = devices.AddFolder(DeviceName(status.kind));
  device.Add("wanted", of_device.wanted);
  device.Add("active", of_device.active);
  device.Add("open", of_device.open);
  device.Add("ready", of_device.ready);
  device.Add("opens", of_device.opens);
  device.Add("version_requests", of_device.version_requests);
  device.Add("info_requests", of_device.info_requests);
  device.Add("read_requests", of_device.read_requests);
  device.Add("rdma_requests", of_device.rdma_requests);
  device.Add("bytes_read", of_device.bytes_read);
  device.Add("rdma_bytes_read", of_device.rdma_bytes_read);
  device.Add("not_found", of_device.not_found);
  device.Add("bad_requests", of_device.bad_requests);
  device.Add("host_errors", of_device.host_errors);
  device.Add("blocking_reads", of_device.blocking_reads);
  device.Add("last_bad_request", of_device.last_bad_request);
  device.Add("last_host_error", of_device.last_host_error);
}

void AddSource(Node& parent, std::string_view name, const BackingSource& source) {
  Node& node = parent.AddFolder(name);
  node.Add("kind", source.kind);
  node.Add("sha256", source.sha256);
  node.Add("size_bytes", source.size_bytes);
  node.Add("file_name", source.file_name);
}

void AddVmContent(Node& vm, const VmStatus& status) {
  AddLink(vm, status.link);
  AddBus(vm, status.link);
  Node& channels = vm.AddFolder("channels");
  for (const VmDeviceStatus& device : status.devices) AddChannel(channels, device);
  Node& devices = vm.AddFolder("devices");
  for (const VmDeviceStatus& device : status.devices) AddDevice(devices, device);
  Node& backings = vm.AddFolder("backings");
  for (const VmDeviceStatus& device : status.devices) {
    Node& backing = backings.AddFolder(DeviceName(device.kind));
    AddSource(backing, "wanted", device.wanted);
    if (device.active.has_value()) AddSource(backing, "active", *device.active);
  }
}

// Adds `entries`, with their content where `reach` levels go below them.
void AddVms(Node& vms, const std::vector<VmEntry>& entries, size_t reach,
            std::chrono::milliseconds answer_max) {
  if (reach <= kVmLevel) {
    for (const VmEntry& entry : entries) vms.AddFolder(entry.record.name).truncated = true;
    return;
  }
  // All are asked before one is waited for: one that is stuck holds up none.
  std::vector<StrandAnswer<VmStatus>> answers;
  answers.reserve(entries.size());
  for (const VmEntry& entry : entries) answers.push_back(entry.vm->Status());
  const auto deadline = std::chrono::steady_clock::now() + answer_max;
  for (size_t i = 0; i < entries.size(); ++i) {
    Node& vm = vms.AddFolder(entries[i].record.name);
    if (const auto status = answers[i].Wait(deadline); status.has_value()) {
      AddVmContent(vm, *status);
    } else {
      vm.Add("error", absl::StrCat("no answer within ", answer_max.count(), " ms"));
    }
  }
}

}  // namespace

absl::StatusOr<Node> InspectTree(const DaemonFacts& facts, const VmRegistry& registry,
                                 std::string_view path, uint32_t depth) {
  const std::vector<std::string> pieces = inspect::Pieces(path);
  const size_t reach = pieces.size() + depth;
  Node root;
  if (pieces.empty() || pieces[0] == "daemon") AddDaemon(root, facts);
  if (pieces.empty() || pieces[0] == "vms") {
    Node& vms = root.AddFolder("vms");
    if (pieces.size() >= kVmLevel) {
      const auto entry = registry.Find(pieces[1]);
      if (entry.has_value()) AddVms(vms, {*entry}, reach, facts.vm_answer_max);
    } else if (reach < kVmLevel) {
      vms.truncated = registry.size() > 0;
    } else {
      AddVms(vms, registry.After("", std::numeric_limits<size_t>::max()), reach,
             facts.vm_answer_max);
    }
  }
  return Select(root, path, depth);
}

}  // namespace vmbfs
