#include "hyperv/link/link_channels.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
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
struct LinkChannels::Opened final : SpinningChannel, std::enable_shared_from_this<Opened> {
  // What it waits for; steps in this order. A pause holds kBegin and kFinish.
  enum class Step {
    kBegin,    // rings to be mapped
    kConnect,  // the wire to the guest
    kFinish,   // the device to be opened
    kServed,   // the device has the channel
    kFaulted,  // the device is closed, and perhaps removed; the guest is to close
    kClosed,
  };

  Opened(LinkChannels& channels_in, const boost::asio::any_io_executor& executor)
      : channels(channels_in), signal_timer(executor), blocked_timer(executor) {}

  LinkChannels& channels;  // awake, it is in them
  Step step = Step::kBegin;
  OfferId offer{};
  std::shared_ptr<LinkDevice> device;
  std::shared_ptr<GuestWire> wire;

  // While opening.
  std::vector<uint64_t> incoming_page_frames;
  std::vector<uint64_t> outgoing_page_frames;
  std::optional<IncomingRing> incoming;
  std::optional<OutgoingRing> outgoing;
  UniqueFd doorbell_fd;

  bool turn_scheduled = false;
  std::shared_ptr<EventWaiter> doorbell;
  boost::asio::steady_timer signal_timer;
  boost::asio::steady_timer blocked_timer;

  bool opening() const { return step < Step::kServed; }
  bool served() const { return step == Step::kServed; }

 private:
  std::optional<ChannelTurn> TakeTurn() override { return channels.Turn(shared_from_this()); }
  void Sleep() override { channels.Sleep(shared_from_this()); }
};

LinkChannels::LinkChannels(LinkExchange& exchange, const GuestMemory& memory,
                           OnOpenDone on_open_done)
    : exchange_(exchange), memory_(memory), on_open_done_(std::move(on_open_done)) {}

LinkChannels::~LinkChannels() { CloseAll(); }

void LinkChannels::AddDevice(OfferId offer, std::shared_ptr<LinkDevice> device) {
  offers_.emplace(device->device.get(), offer);
  devices_.emplace(offer, std::move(device));
}

void LinkChannels::RemoveDevice(OfferId offer) {
  if (const auto device = devices_.find(offer); device != devices_.end()) {
    offers_.erase(device->second->device.get());
    devices_.erase(device);
  }
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

std::optional<OfferId> LinkChannels::OfferOf(const ChannelDevice& device) const {
  const auto found = offers_.find(&device);
  return found == offers_.end() ? std::nullopt : std::optional(found->second);
}

void LinkChannels::Open(OfferId offer, std::span<const uint64_t> incoming_page_frames,
                        std::span<const uint64_t> outgoing_page_frames,
                        std::shared_ptr<GuestWire> wire) {
  const auto device = devices_.find(offer);
  if (device == devices_.end() || opened_.contains(offer)) {
    on_open_done_(offer, absl::FailedPreconditionError("no device serves this offer"));
    return;
  }
  auto opened = std::make_shared<Opened>(*this, exchange_.executor());
  opened->offer = offer;
  opened->device = device->second;
  opened->wire = std::move(wire);
  opened->incoming_page_frames.assign(incoming_page_frames.begin(), incoming_page_frames.end());
  opened->outgoing_page_frames.assign(outgoing_page_frames.begin(), outgoing_page_frames.end());
  opened_.emplace(offer, opened);
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
  const VanishedMemoryWatch watch;
  const absl::Status mapped = MapRings(*opened);
  if (absl::Status status = memory_.CheckVanished(watch); !status.ok()) return status;
  if (!mapped.ok()) return mapped;
  opened->step = Opened::Step::kConnect;
  opened->wire->Connect(
      [this, weak = std::weak_ptr<Opened>(opened)](absl::StatusOr<UniqueFd> doorbell) {
        if (const OpenedPtr locked = weak.lock()) Connected(locked, std::move(doorbell));
      });
  return absl::OkStatus();
}

void LinkChannels::Connected(const OpenedPtr& opened, absl::StatusOr<UniqueFd> doorbell) {
  if (opened->step != Opened::Step::kConnect) return;
  if (!doorbell.ok()) {
    FailOpen(opened, doorbell.status());
    return;
  }
  opened->doorbell_fd = *std::move(doorbell);
  opened->step = Opened::Step::kFinish;
  Advance(opened);
}

void LinkChannels::FinishOpen(const OpenedPtr& opened) {
  const VanishedMemoryWatch watch;
  absl::Status status = StartDevice(opened);
  if (status.ok()) status = memory_.CheckVanished(watch);
  if (!status.ok()) {
    FailOpen(opened, status);
    return;
  }
  on_open_done_(opened->offer, absl::OkStatus());
  ScheduleTurn(opened);
  SignalLater(opened);
}

absl::Status LinkChannels::StartDevice(const OpenedPtr& opened) {
  const std::weak_ptr<Opened> weak = opened;
  absl::StatusOr<std::shared_ptr<EventWaiter>> doorbell =
      EventWaiter::Start(exchange_.executor(), std::move(opened->doorbell_fd), [this, weak] {
        const OpenedPtr locked = weak.lock();
        if (locked == nullptr) return;
        ++locked->device->doorbells;
        LookAfter(locked);
      });
  if (!doorbell.ok()) return doorbell.status();
  auto channel = std::make_unique<Channel>(
      *std::move(opened->incoming), *std::move(opened->outgoing),
      [this, weak] {
        if (const OpenedPtr locked = weak.lock()) SignalGuest(*locked);
      },
      &memory_);
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
  exchange_.NoteError(absl::StrCat("open refused: ", reason.message()));
  const LinkShared& shared = exchange_.shared();
  if (shared.on_open_refused) shared.on_open_refused(*opened->device->device, reason);
  on_open_done_(opened->offer, reason);
}

void LinkChannels::Close(OfferId offer) {
  const auto found = opened_.find(offer);
  if (found == opened_.end()) return;
  const OpenedPtr opened = found->second;
  if (opened->opening()) {
    FailOpen(opened, absl::CancelledError("closed while it was opened"));
  } else {
    LetGo(*opened);
    opened_.erase(offer);
  }
}

// Ends all that an opened channel holds; its callbacks find kClosed.
void LinkChannels::LetGo(Opened& opened) {
  StopService(opened);
  opened.step = Opened::Step::kClosed;
  opened.incoming.reset();
  opened.outgoing.reset();
  opened.doorbell_fd.reset();
  opened.wire.reset();
}

// Closes the device if it has the channel, and listens no more.
void LinkChannels::StopService(Opened& opened) {
  LeaveSpinner(opened);
  opened.signal_timer.cancel();
  opened.blocked_timer.cancel();
  opened.doorbell.reset();
  if (opened.served()) opened.device->device->Close();
}

void LinkChannels::Fault(const OpenedPtr& opened, const absl::Status& reason) {
  StopService(*opened);
  opened->step = Opened::Step::kFaulted;
  opened->device->fault = std::string(reason.message().substr(0, kReasonBytesMax));
  ++opened->device->faults;
  const LinkShared& shared = exchange_.shared();
  if (shared.on_fault) shared.on_fault(*opened->device->device, reason);
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

void LinkChannels::SetRunning(bool running) {
  if (std::exchange(running_, running) == running) return;
  std::vector<OpenedPtr> all;
  for (const auto& [offer, opened] : opened_) all.push_back(opened);
  for (const OpenedPtr& opened : all) {
    LeaveSpinner(*opened);
    if (!running) continue;
    if (opened->opening()) {
      Advance(opened);
    } else if (opened->served()) {
      SignalGuest(*opened);
      ScheduleTurn(opened);
    }
  }
}

void LinkChannels::Signalled(OfferId offer) {
  const auto found = opened_.find(offer);
  if (found == opened_.end() || !found->second->served()) return;
  ++found->second->device->doorbells;
  ScheduleTurn(found->second);
}

// A turn that comes to nothing (paused, faulted, closed) may be forgotten:
// SetRunning schedules one for every served channel.
void LinkChannels::ScheduleTurn(const OpenedPtr& opened) {
  if (std::exchange(opened->turn_scheduled, true)) return;
  boost::asio::post(exchange_.executor(),
                    [weak_self = weak_from_this(), weak = std::weak_ptr(opened)] {
                      const auto self = weak_self.lock();
                      const OpenedPtr locked = weak.lock();
                      if (self == nullptr || locked == nullptr) return;
                      locked->turn_scheduled = false;
                      self->LookAfter(locked);
                    });
}

void LinkChannels::LookAfter(const OpenedPtr& opened) {
  const std::optional<ChannelTurn> turn = Turn(opened);
  if (!turn.has_value()) return;
  const bool more = turn->next == ChannelTurn::Next::kMore;
  if (turn->next == ChannelTurn::Next::kWaiting) {
    LeaveSpinner(*opened);
  } else if (Spinner* const spinner = exchange_.shared().spinner;
             spinner != nullptr && (more || turn->requests > 0)) {
    spinner->Add(*opened);
  } else if (more) {
    ScheduleTurn(opened);
  } else if (!opened->awake()) {
    if (spinner != nullptr) spinner->CountSleep();
    Sleep(opened);
  }
}

std::optional<ChannelTurn> LinkChannels::Turn(const OpenedPtr& opened) {
  if (!running_ || !opened->served()) return std::nullopt;
  const VanishedMemoryWatch watch;
  const absl::StatusOr<ChannelTurn> turn = opened->device->device->Run();
  if (!GoesOn(opened, watch, turn.status())) return std::nullopt;
  return *turn;
}

void LinkChannels::Sleep(const OpenedPtr& opened) {
  if (!running_ || !opened->served()) return;
  const VanishedMemoryWatch watch;
  const absl::StatusOr<Armed> armed = opened->device->device->Arm();
  if (!GoesOn(opened, watch, armed.status())) return;
  if (*armed == Armed::kArrived) ScheduleTurn(opened);
  if (*armed == Armed::kUnsignalled) LookAgainLater(opened);
}

bool LinkChannels::GoesOn(const OpenedPtr& opened, const VanishedMemoryWatch& watch,
                          const absl::Status& result) {
  const absl::Status vanished = memory_.CheckVanished(watch);
  if (!opened->served()) return false;
  if (vanished.ok() && result.ok()) return true;
  Fault(opened, vanished.ok() ? result : vanished);
  return false;
}

void LinkChannels::LookAgainLater(const OpenedPtr& opened) {
  opened->blocked_timer.expires_after(kBlockedPollInterval);
  opened->blocked_timer.async_wait([weak_self = weak_from_this(), weak = std::weak_ptr(opened)](
                                       const boost::system::error_code& error) {
    const auto self = weak_self.lock();
    const OpenedPtr locked = weak.lock();
    if (!error && self != nullptr && locked != nullptr) self->LookAfter(locked);
  });
}

void LinkChannels::LeaveSpinner(Opened& opened) {
  if (Spinner* const spinner = exchange_.shared().spinner) spinner->Remove(opened);
}

// What is lost while not running, SetRunning makes good.
void LinkChannels::SignalGuest(const Opened& opened) {
  const bool connected = opened.step == Opened::Step::kFinish || opened.served();
  if (running_ && connected && opened.wire->Interrupt()) ++opened.device->signals;
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
    LetGo(*opened);
  }
  devices_.clear();
  offers_.clear();
}

bool LinkChannels::IsServed(OfferId offer) const {
  const auto found = opened_.find(offer);
  return found != opened_.end() && found->second->served();
}

}  // namespace vmbfs::hyperv
