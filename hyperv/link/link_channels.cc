#include "hyperv/link/link_channels.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/link/event_fd.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

// One channel from the guest's Open to its Close.
struct LinkChannels::Opened {
  // What it waits for; steps in this order. A pause holds kBegin and kFinish.
  enum class Step {
    kBegin,       // rings to be mapped
    kConnection,  // the VMM's answer to CONN_SET
    kInterrupt,   // the VMM's answer to SINT_GET
    kFinish,      // the device to be opened
    kServed,      // the device has the channel
    kFaulted,     // the device is closed, and perhaps removed; the guest is to close
    kClosed,
  };

  explicit Opened(const boost::asio::any_io_executor& executor) : signal_timer(executor) {}

  Step step = Step::kBegin;
  OfferId offer{};
  uint32_t connection_id = 0;
  uint16_t event_flag = 0;
  uint32_t target_vp = 0;
  std::shared_ptr<LinkDevice> device;

  // While opening.
  std::vector<uint64_t> incoming_page_frames;
  std::vector<uint64_t> outgoing_page_frames;
  std::optional<IncomingRing> incoming;
  std::optional<OutgoingRing> outgoing;
  UniqueFd doorbell_fd;

  bool connection_set = false;  // CONN_SET was sent
  bool interrupt_acquired = false;
  bool turn_scheduled = false;
  std::shared_ptr<EventWaiter> doorbell;
  boost::asio::steady_timer signal_timer;

  bool opening() const { return step < Step::kServed; }
  bool served() const { return step == Step::kServed; }
};

LinkChannels::LinkChannels(const boost::asio::any_io_executor& executor, Port& port,
                           const GuestMemory& memory, Synic& synic)
    : executor_(executor), port_(port), memory_(memory), synic_(synic) {}

LinkChannels::~LinkChannels() { CloseAll(); }

void LinkChannels::AddDevice(OfferId offer, std::shared_ptr<LinkDevice> device) {
  devices_.emplace(offer, std::move(device));
}

void LinkChannels::RemoveDevice(OfferId offer) {
  devices_.erase(offer);
  const auto found = opened_.find(offer);
  if (found == opened_.end()) return;
  const OpenedPtr opened = found->second;
  if (opened->opening()) {
    FailOpen(opened, absl::CancelledError("the device was removed"));
  } else {
    StopService(*opened);
    opened->step = Opened::Step::kFaulted;
    opened->device.reset();
  }
}

void LinkChannels::Open(const OpenRequest& request) {
  const auto device = devices_.find(request.offer);
  if (device == devices_.end() || opened_.contains(request.offer)) {
    port_.OpenDone(request.offer, absl::FailedPreconditionError("no device serves this offer"));
    return;
  }
  auto opened = std::make_shared<Opened>(executor_);
  opened->offer = request.offer;
  opened->connection_id = request.connection_id;
  opened->event_flag = request.event_flag;
  opened->target_vp = request.target_vp;
  opened->device = device->second;
  opened->incoming_page_frames.assign(request.incoming_page_frames.begin(),
                                      request.incoming_page_frames.end());
  opened->outgoing_page_frames.assign(request.outgoing_page_frames.begin(),
                                      request.outgoing_page_frames.end());
  opened_.emplace(request.offer, opened);
  Advance(opened);
}

void LinkChannels::Advance(const OpenedPtr& opened) {
  if (!running_) return;
  if (opened->step == Opened::Step::kBegin) {
    if (const absl::Status status = BeginOpen(opened); !status.ok()) FailOpen(opened, status);
  } else if (opened->step == Opened::Step::kFinish) {
    FinishOpen(opened);
  }
}

absl::Status LinkChannels::MapRings(Opened& opened) const {
  absl::StatusOr<RingMemory> incoming = RingMemory::Map(memory_, opened.incoming_page_frames);
  if (!incoming.ok()) return incoming.status();
  absl::StatusOr<RingMemory> outgoing = RingMemory::Map(memory_, opened.outgoing_page_frames);
  if (!outgoing.ok()) return outgoing.status();
  absl::StatusOr<IncomingRing> incoming_ring = IncomingRing::Open(*std::move(incoming));
  if (!incoming_ring.ok()) return incoming_ring.status();
  absl::StatusOr<OutgoingRing> outgoing_ring = OutgoingRing::Open(*std::move(outgoing));
  if (!outgoing_ring.ok()) return outgoing_ring.status();
  opened.incoming.emplace(*std::move(incoming_ring));
  opened.outgoing.emplace(*std::move(outgoing_ring));
  opened.incoming_page_frames = {};
  opened.outgoing_page_frames = {};
  return absl::OkStatus();
}

absl::Status LinkChannels::BeginOpen(const OpenedPtr& opened) {
  if (!opened->device->open_allowed) {
    return absl::FailedPreconditionError("opening this device's channel is not allowed now");
  }
  if (opened->target_vp != kNoInterruptVp && opened->target_vp >= synic_.vp_count()) {
    return absl::InvalidArgumentError(absl::StrCat("target VP ", opened->target_vp, " of ",
                                                   synic_.vp_count(), " does not exist"));
  }
  if (opened->event_flag >= kSynicEventFlags) {
    return absl::InvalidArgumentError(absl::StrCat("event flag ", opened->event_flag));
  }
  const VanishedMemoryWatch watch;
  const absl::Status mapped = MapRings(*opened);
  if (absl::Status status = memory_.CheckVanished(watch); !status.ok()) return status;
  if (!mapped.ok()) return mapped;
  absl::StatusOr<UniqueFd> doorbell = CreateEventFd();
  if (!doorbell.ok()) return doorbell.status();
  absl::StatusOr<UniqueFd> for_vmm = DuplicateFd(*doorbell);
  if (!for_vmm.ok()) return for_vmm.status();
  opened->doorbell_fd = *std::move(doorbell);
  opened->step = Opened::Step::kConnection;
  opened->connection_set = true;
  port_.SetConnection(opened->connection_id, *std::move(for_vmm),
                      [this, weak = std::weak_ptr<Opened>(opened)](const absl::Status& result) {
                        if (const OpenedPtr locked = weak.lock()) ConnectionSet(locked, result);
                      });
  return absl::OkStatus();
}

void LinkChannels::ConnectionSet(const OpenedPtr& opened, const absl::Status& result) {
  if (opened->step != Opened::Step::kConnection) return;
  if (!result.ok()) {
    FailOpen(opened, result);
    return;
  }
  if (opened->target_vp == kNoInterruptVp) {
    opened->step = Opened::Step::kFinish;
    Advance(opened);
    return;
  }
  opened->step = Opened::Step::kInterrupt;
  const uint32_t vp = opened->target_vp;
  synic_.Acquire(vp, [this, vp, weak = std::weak_ptr<Opened>(opened)](const absl::Status& status) {
    const OpenedPtr locked = weak.lock();
    if (locked == nullptr || locked->step != Opened::Step::kInterrupt) {
      if (status.ok()) synic_.Release(vp);
    } else if (!status.ok()) {
      FailOpen(locked, status);
    } else {
      locked->interrupt_acquired = true;
      locked->step = Opened::Step::kFinish;
      Advance(locked);
    }
  });
}

void LinkChannels::FinishOpen(const OpenedPtr& opened) {
  const VanishedMemoryWatch watch;
  absl::Status status = StartDevice(opened);
  if (status.ok()) status = memory_.CheckVanished(watch);
  if (!status.ok()) {
    FailOpen(opened, status);
    return;
  }
  port_.OpenDone(opened->offer, absl::OkStatus());
  ScheduleTurn(opened);
  SignalLater(opened);
}

absl::Status LinkChannels::StartDevice(const OpenedPtr& opened) {
  const std::weak_ptr<Opened> weak = opened;
  absl::StatusOr<std::shared_ptr<EventWaiter>> doorbell =
      EventWaiter::Start(executor_, std::move(opened->doorbell_fd), [this, weak] {
        const OpenedPtr locked = weak.lock();
        if (locked == nullptr) return;
        ++locked->device->doorbells;
        Turn(locked);
      });
  if (!doorbell.ok()) return doorbell.status();
  auto channel = std::make_unique<Channel>(*std::move(opened->incoming),
                                           *std::move(opened->outgoing), [this, weak] {
                                             if (const OpenedPtr locked = weak.lock())
                                               SignalGuest(*locked);
                                           });
  opened->incoming.reset();
  opened->outgoing.reset();
  // A wake may come before Open returns; its turn comes after.
  absl::Status status = opened->device->device->Open(std::move(channel), [this, weak] {
    if (const OpenedPtr locked = weak.lock()) ScheduleTurn(locked);
  });
  if (!status.ok()) return status;
  opened->doorbell = *std::move(doorbell);
  opened->step = Opened::Step::kServed;
  opened->device->fault.clear();
  return absl::OkStatus();
}

void LinkChannels::FailOpen(const OpenedPtr& opened, const absl::Status& reason) {
  LetGo(*opened);
  opened_.erase(opened->offer);
  port_.OpenDone(opened->offer, reason);
}

void LinkChannels::Close(OfferId offer) {
  if (const auto found = opened_.find(offer); found != opened_.end()) {
    const OpenedPtr opened = found->second;
    if (opened->opening()) {
      FailOpen(opened, absl::CancelledError("closed while it was opened"));
    } else {
      LetGo(*opened);
      opened_.erase(offer);
    }
  }
  port_.CloseDone(offer);
}

// Ends all that an opened channel holds; its callbacks find kClosed.
void LinkChannels::LetGo(Opened& opened) {
  StopService(opened);
  opened.step = Opened::Step::kClosed;
  opened.incoming.reset();
  opened.outgoing.reset();
  opened.doorbell_fd.reset();
  if (std::exchange(opened.connection_set, false)) port_.ClearConnection(opened.connection_id);
  if (std::exchange(opened.interrupt_acquired, false)) synic_.Release(opened.target_vp);
}

// Closes the device if it has the channel, and listens no more.
void LinkChannels::StopService(Opened& opened) {
  opened.signal_timer.cancel();
  opened.doorbell.reset();
  if (opened.served()) opened.device->device->Close();
}

void LinkChannels::Fault(const OpenedPtr& opened, const absl::Status& reason) {
  StopService(*opened);
  opened->step = Opened::Step::kFaulted;
  opened->device->fault = std::string(reason.message().substr(0, kReasonBytesMax));
  ++opened->device->faults;
  port_.Faulted(*opened->device->device, reason);
}

void LinkChannels::FaultIf(const std::function<bool(OfferId)>& uses, const absl::Status& reason) {
  std::vector<OpenedPtr> used;
  for (const auto& [offer, opened] : opened_) {
    if (uses(offer)) used.push_back(opened);
  }
  for (const OpenedPtr& opened : used) {
    if (opened->opening()) {
      FailOpen(opened, reason);
    } else if (opened->served()) {
      Fault(opened, reason);
    }
  }
}

void LinkChannels::Modify(OfferId offer, uint32_t target_vp) {
  const auto found = opened_.find(offer);
  if (found == opened_.end() || !found->second->interrupt_acquired ||
      target_vp >= synic_.vp_count()) {
    port_.ModifyDone(offer, absl::InvalidArgumentError(
                                absl::StrCat("interrupts cannot move to VP ", target_vp)));
    return;
  }
  synic_.Acquire(target_vp, [this, offer, target_vp, weak = std::weak_ptr<Opened>(found->second)](
                                const absl::Status& status) {
    const OpenedPtr opened = weak.lock();
    if (opened == nullptr || !opened->interrupt_acquired) {
      if (status.ok()) synic_.Release(target_vp);
      return;  // the guest closed the channel: nobody waits for an answer
    }
    if (status.ok()) synic_.Release(std::exchange(opened->target_vp, target_vp));
    port_.ModifyDone(offer, status);
  });
}

void LinkChannels::SetRunning(bool running) {
  if (std::exchange(running_, running) == running || !running) return;
  std::vector<OpenedPtr> all;
  for (const auto& [offer, opened] : opened_) all.push_back(opened);
  for (const OpenedPtr& opened : all) {
    if (opened->opening()) {
      Advance(opened);
    } else if (opened->served()) {
      SignalGuest(*opened);
      ScheduleTurn(opened);
    }
  }
}

void LinkChannels::Signalled(uint32_t connection_id) {
  for (const auto& [offer, opened] : opened_) {
    if (opened->connection_id != connection_id || !opened->served()) continue;
    ++opened->device->doorbells;
    ScheduleTurn(opened);
  }
}

// A turn that comes to nothing (paused, faulted, closed) may be forgotten:
// SetRunning schedules one for every served channel.
void LinkChannels::ScheduleTurn(const OpenedPtr& opened) {
  if (std::exchange(opened->turn_scheduled, true)) return;
  boost::asio::post(executor_, [weak_self = weak_from_this(), weak = std::weak_ptr(opened)] {
    const auto self = weak_self.lock();
    const OpenedPtr locked = weak.lock();
    if (self == nullptr || locked == nullptr) return;
    locked->turn_scheduled = false;
    self->Turn(locked);
  });
}

void LinkChannels::Turn(const OpenedPtr& opened) {
  if (!running_ || !opened->served()) return;
  const VanishedMemoryWatch watch;
  const absl::StatusOr<bool> more = opened->device->device->Run();
  const absl::Status vanished = memory_.CheckVanished(watch);
  if (!opened->served()) return;
  if (!vanished.ok()) {
    Fault(opened, vanished);
  } else if (!more.ok()) {
    Fault(opened, more.status());
  } else if (*more) {
    ScheduleTurn(opened);
  }
}

void LinkChannels::SignalGuest(const Opened& opened) {
  if (!opened.interrupt_acquired) return;
  ++opened.device->signals;
  synic_.SignalEvent(opened.target_vp, opened.event_flag);
}

void LinkChannels::SignalLater(const OpenedPtr& opened) {
  opened->signal_timer.expires_after(kSignalAfterOpen);
  opened->signal_timer.async_wait([weak_self = weak_from_this(), weak = std::weak_ptr(opened)](
                                      const boost::system::error_code& error) {
    const auto self = weak_self.lock();
    const OpenedPtr locked = weak.lock();
    if (error || self == nullptr || locked == nullptr || !locked->served()) return;
    self->SignalGuest(*locked);
  });
}

void LinkChannels::CloseAll() {
  for (const auto& [offer, opened] : std::exchange(opened_, {})) {
    StopService(*opened);
    opened->step = Opened::Step::kClosed;
    opened->interrupt_acquired = false;
  }
  devices_.clear();
}

bool LinkChannels::IsServed(OfferId offer) const {
  const auto found = opened_.find(offer);
  return found != opened_.end() && found->second->served();
}

}  // namespace vmbfs::hyperv
