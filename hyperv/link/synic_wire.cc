#include "hyperv/link/synic_wire.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/link/event_fd.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {

SynicWire::~SynicWire() {
  if (event_acquired_) synic_.Release(numbers_.target_vp, numbers_.event_flag);
  if (!connection_set_) return;
  const uint64_t seq = exchange_.Expect(
      LinkType::kConnClr, [](const absl::Status&, const LinkFrame&) { return absl::OkStatus(); });
  exchange_.Send(BuildConnClr(seq, numbers_.connection_id));
}

void SynicWire::Connect(OnConnected on_connected) {
  on_connected_ = std::move(on_connected);
  if (numbers_.target_vp != kNoInterruptVp && numbers_.target_vp >= vp_count_) {
    Finish(absl::InvalidArgumentError(
        absl::StrCat("target VP ", numbers_.target_vp, " of ", vp_count_, " does not exist")));
    return;
  }
  if (numbers_.event_flag >= kSynicEventFlags) {
    Finish(absl::InvalidArgumentError(absl::StrCat("event flag ", numbers_.event_flag)));
    return;
  }
  absl::StatusOr<UniqueFd> doorbell = CreateEventFd();
  absl::StatusOr<UniqueFd> for_vmm = doorbell.ok() ? DuplicateFd(*doorbell) : doorbell.status();
  if (!for_vmm.ok()) {
    Finish(for_vmm.status());
    return;
  }
  doorbell_ = *std::move(doorbell);
  connection_set_ = true;
  const uint64_t seq = exchange_.Expect(
      LinkType::kConnSet, [weak = weak_from_this()](const absl::Status& result, const LinkFrame&) {
        if (const std::shared_ptr<SynicWire> self = weak.lock()) {
          result.ok() ? self->AcquireEvent() : self->Finish(result);
        }
        return absl::OkStatus();
      });
  exchange_.Send(BuildConnSet(seq, numbers_.connection_id), *std::move(for_vmm));
}

void SynicWire::AcquireEvent() {
  const uint32_t vp = numbers_.target_vp;
  if (vp == kNoInterruptVp) {
    Finish(absl::OkStatus());
    return;
  }
  synic_.Acquire(vp, numbers_.event_flag,
                 [&synic = synic_, vp, flag = numbers_.event_flag,
                  weak = weak_from_this()](const absl::Status& status) {
                   if (const std::shared_ptr<SynicWire> self = weak.lock()) {
                     self->event_acquired_ = status.ok();
                     self->Finish(status);
                   } else if (status.ok()) {
                     synic.Release(vp, flag);
                   }
                 });
}

void SynicWire::Finish(const absl::Status& result) {
  const OnConnected on_connected = std::exchange(on_connected_, {});
  if (result.ok()) {
    on_connected(std::move(doorbell_));
  } else {
    on_connected(result);
  }
}

bool SynicWire::Interrupt() {
  if (event_acquired_) synic_.SignalEvent(numbers_.target_vp, numbers_.event_flag);
  return event_acquired_;
}

void SynicWire::Move(uint32_t target_vp, std::function<void(const absl::Status&)> done) {
  if (!event_acquired_ || target_vp >= vp_count_) {
    done(absl::InvalidArgumentError(absl::StrCat("interrupts cannot move to VP ", target_vp)));
    return;
  }
  synic_.Acquire(target_vp, numbers_.event_flag,
                 [&synic = synic_, target_vp, flag = numbers_.event_flag, weak = weak_from_this(),
                  done = std::move(done)](const absl::Status& status) {
                   const std::shared_ptr<SynicWire> self = weak.lock();
                   if (self == nullptr) {  // the guest closed the channel meanwhile
                     if (status.ok()) synic.Release(target_vp, flag);
                     return;
                   }
                   if (status.ok()) {
                     synic.Release(std::exchange(self->numbers_.target_vp, target_vp), flag);
                   }
                   done(status);
                 });
}

}  // namespace vmbfs::hyperv
