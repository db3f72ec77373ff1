#include "core/vm/vm.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/log/escape.h"
#include "core/log/rate_limiter.h"
#include "core/vm/pool_fd_closer.h"
#include "core/vm/strand_blocking_runner.h"

namespace vmbfs {
namespace {

constexpr std::chrono::seconds kLineInterval{10};

const hyperv::Guid& InstanceId(DeviceKind kind) {
  return kind == DeviceKind::kImc ? kImcInstanceId : kBootInstanceId;
}

}  // namespace

// What lives on the strand.
class Vm::Core {
 public:
  Core(std::string name, const DataPlane::Seat& seat, boost::asio::thread_pool& pool,
       const VmbfsDeviceOptions& device_options)
      : name_(std::move(name)),
        pool_(pool),
        device_options_(device_options),
        runner_(seat.executor(), pool),
        link_(seat.executor(), seat.spinner()) {}

  absl::Status Listen(const std::string& socket_path, const VmOptions& vm_options) {
    hyperv::LinkOptions options;
    options.socket_path = socket_path;
    options.owner_uid = vm_options.owner_uid;
    options.allow_unsealed_memory = vm_options.allow_unsealed_memory;
    options.monitored = vm_options.monitored;
    options.connection.closer = std::make_shared<PoolFdCloser>(pool_);
    // The link calls back on the strand alone, and ends before this object.
    options.on_fault = [this](const hyperv::ChannelDevice& device, const absl::Status& reason) {
      Log("channel faulted", NameOf(device), reason.message());
    };
    options.on_open_refused = [this](const hyperv::ChannelDevice& device,
                                     const absl::Status& reason) {
      Log("open refused", NameOf(device), reason.message());
    };
    return link_.Listen(options);
  }

  hyperv::LinkServer& link() { return link_; }

  absl::Status Attach(DeviceKind kind, LiveBacking backing) {
    if (slots_.contains(kind)) return absl::AlreadyExistsError("the device is attached");
    auto device =
        std::make_shared<VmbfsDevice>(InstanceId(kind), backing.backing, runner_, device_options_);
    device->SetReporter([this, kind](std::string_view reason) {
      Log("request refused", DeviceName(kind), absl::string_view(reason.data(), reason.size()));
    });
    if (absl::Status status = link_.Add(device); !status.ok()) return status;
    slots_.emplace(kind, Slot{.device = std::move(device), .wanted = std::move(backing)});
    return absl::OkStatus();
  }

  absl::Status SetBacking(DeviceKind kind, LiveBacking backing) {
    const auto found = slots_.find(kind);
    if (found == slots_.end()) return absl::NotFoundError("the device is not attached");
    Slot& slot = found->second;
    // An open channel reads what was wanted at its open: that, or what is held
    // since an earlier swap.
    const auto active = slot.device->active();
    if (active == slot.wanted.backing) {
      slot.held = std::move(slot.wanted);
    } else if (!slot.held.has_value() || active != slot.held->backing) {
      slot.held.reset();
    }
    slot.wanted = std::move(backing);
    slot.device->SetBacking(slot.wanted.backing);
    return absl::OkStatus();
  }

  std::vector<DeviceKind> RefuseOpen(const std::vector<DeviceKind>& kinds) {
    std::vector<DeviceKind> open;
    for (const auto& [kind, slot] : slots_) {
      if (IsOneOf(kind, kinds) && link_.IsOpen(*slot.device)) open.push_back(kind);
    }
    if (open.empty()) SetOpenAllowed(kinds, false);
    return open;
  }

  void SetOpenAllowed(const std::vector<DeviceKind>& kinds, bool allowed) {
    for (const auto& [kind, slot] : slots_) {
      if (IsOneOf(kind, kinds)) link_.SetOpenAllowed(*slot.device, allowed);
    }
  }

  absl::Status Detach(DeviceKind kind) {
    const auto found = slots_.find(kind);
    if (found == slots_.end()) return absl::NotFoundError("the device is not attached");
    link_.Remove(*found->second.device);
    slots_.erase(found);
    return absl::OkStatus();
  }

  VmStatus Status() const {
    VmStatus status{.link = link_.status(), .devices = {}};
    const auto channels = std::exchange(status.link.channels, {});
    for (const auto& [kind, slot] : slots_) {
      VmDeviceStatus& device = status.devices.emplace_back();
      device.kind = kind;
      device.wanted = slot.wanted.source;
      device.active = ActiveSource(slot);
      device.device = slot.device->status();
      const auto channel = std::find_if(
          channels.begin(), channels.end(),
          [&slot](const auto& candidate) { return candidate.device == slot.device.get(); });
      if (channel != channels.end()) device.channel = *channel;
      device.channel.device = nullptr;
    }
    return status;
  }

 private:
  struct Slot {
    std::shared_ptr<VmbfsDevice> device;
    LiveBacking wanted;
    std::optional<LiveBacking> held = std::nullopt;  // what an open channel may still read
  };

  static bool IsOneOf(DeviceKind kind, const std::vector<DeviceKind>& kinds) {
    return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
  }

  static std::optional<BackingSource> ActiveSource(const Slot& slot) {
    const auto active = slot.device->active();
    if (active == nullptr) return std::nullopt;
    if (active == slot.wanted.backing) return slot.wanted.source;
    if (slot.held.has_value() && active == slot.held->backing) return slot.held->source;
    return std::nullopt;
  }

  std::string_view NameOf(const hyperv::ChannelDevice& device) const {
    for (const auto& [kind, slot] : slots_) {
      if (slot.device.get() == &device) return DeviceName(kind);
    }
    return "unknown";
  }

  // One line for each event and device in a while. A write to stderr may block:
  // the line is written by the pool.
  void Log(std::string_view event, std::string_view device, absl::string_view reason) {
    const auto held_back = lines_.Admit(std::string(event).append(" ").append(device));
    if (!held_back.has_value()) return;
    std::string line =
        absl::StrCat(std::string(event), ": ", log::Escape(std::string(reason)), " (vm=", name_,
                     " device=", std::string(device), " not_logged_before=", *held_back, ")");
    boost::asio::post(pool_, [line = std::move(line)] { spdlog::warn("{}", line); });
  }

  const std::string name_;
  boost::asio::thread_pool& pool_;
  const VmbfsDeviceOptions device_options_;
  log::RateLimiter lines_{kLineInterval};
  StrandBlockingRunner runner_;  // outlives the devices
  std::map<DeviceKind, Slot> slots_;
  hyperv::LinkServer link_;
};

Vm::Vm(std::string name, DataPlane& data_plane, boost::asio::thread_pool& pool,
       const VmbfsDeviceOptions& devices)
    : name_(std::move(name)),
      seat_(data_plane.TakeSeat()),
      core_(std::make_shared<Core>(name_, seat_, pool, devices)) {}

Vm::~Vm() {
  // The core ends on its strand, after whatever was asked of it before, and one
  // turn after its link: handlers that the link's end cancels may hold devices.
  const auto strand = seat_.executor();
  boost::asio::post(strand, [strand, core = std::move(core_)]() mutable {
    core->link().Stop();
    boost::asio::post(strand, [core = std::move(core)] {});
  });
}

absl::Status Vm::Listen(const std::string& socket_path, const VmOptions& options) {
  return core_->Listen(socket_path, options);
}

StrandAnswer<Done> Vm::Serve() {
  return AskStrand(seat_.executor(), LateWork::kRun, [core = core_] {
    core->link().Start();
    return Done{};
  });
}

StrandAnswer<Done> Vm::Stop() {
  return AskStrand(seat_.executor(), LateWork::kRun, [core = core_] {
    core->link().Stop();
    return Done{};
  });
}

StrandAnswer<absl::Status> Vm::Attach(DeviceKind kind, LiveBacking backing) {
  return AskStrand(seat_.executor(), LateWork::kRun,
                   [core = core_, kind, backing = std::move(backing)]() mutable {
                     return core->Attach(kind, std::move(backing));
                   });
}

StrandAnswer<absl::Status> Vm::SetBacking(DeviceKind kind, LiveBacking backing) {
  return AskStrand(seat_.executor(), LateWork::kRun,
                   [core = core_, kind, backing = std::move(backing)]() mutable {
                     return core->SetBacking(kind, std::move(backing));
                   });
}

StrandAnswer<std::vector<DeviceKind>> Vm::RefuseOpen(std::vector<DeviceKind> kinds) {
  return AskStrand(seat_.executor(), LateWork::kDrop,
                   [core = core_, kinds = std::move(kinds)] { return core->RefuseOpen(kinds); });
}

StrandAnswer<Done> Vm::AllowOpen(std::vector<DeviceKind> kinds) {
  return AskStrand(seat_.executor(), LateWork::kRun, [core = core_, kinds = std::move(kinds)] {
    core->SetOpenAllowed(kinds, true);
    return Done{};
  });
}

StrandAnswer<absl::Status> Vm::Detach(DeviceKind kind) {
  return AskStrand(seat_.executor(), LateWork::kRun,
                   [core = core_, kind] { return core->Detach(kind); });
}

StrandAnswer<VmStatus> Vm::Status() {
  return AskStrand(seat_.executor(), LateWork::kDrop, [core = core_] { return core->Status(); });
}

}  // namespace vmbfs
