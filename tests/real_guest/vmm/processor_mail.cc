#include "tests/real_guest/vmm/processor_mail.h"

#include <sys/eventfd.h>

#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::test_vmm {

ProcessorMail::ProcessorMail(bool has_vmbus)
    : has_vmbus_(has_vmbus), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

uint16_t ProcessorMail::PostMessage(const PostedMessage& message) {
  if (message.size > hyperv::kSynicPayloadBytesMax) return hyperv::kHypercallInvalidParameter;
  if (!has_vmbus_ || (message.connection != hyperv::kMessageConnection &&
                      message.connection != hyperv::kMultiClientMessageConnection)) {
    return hyperv::kHypercallInvalidConnectionId;
  }
  {
    const std::lock_guard lock(mutex_);
    if (unfinished_posts_ >= hyperv::kLinkPostsMax) return hyperv::kHypercallInsufficientBuffers;
    ++unfinished_posts_;
    contents_.posts.push_back(message);
  }
  hyperv::RingEventFd(wake_.get());
  return hyperv::kHypercallSuccess;
}

void ProcessorMail::SignalEvent(uint32_t connection, uint16_t flag) {
  {
    const std::lock_guard lock(mutex_);
    if (contents_.signals.size() >= kSignalsMax) return;
    contents_.signals.emplace(connection, flag);
  }
  hyperv::RingEventFd(wake_.get());
}

void ProcessorMail::SetSynic(uint32_t vp, const SynicState& state) {
  {
    const std::lock_guard lock(mutex_);
    contents_.synics[vp] = state;
  }
  hyperv::RingEventFd(wake_.get());
}

void ProcessorMail::End(Ending ending, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!ending_) ending_.emplace(ending, reason);
  }
  hyperv::RingEventFd(wake_.get());
}

ProcessorMail::Contents ProcessorMail::Take() {
  hyperv::DrainEventFd(wake_.get());
  const std::lock_guard lock(mutex_);
  return std::exchange(contents_, {});
}

void ProcessorMail::PostsDone(size_t count) {
  const std::lock_guard lock(mutex_);
  unfinished_posts_ -= count;
}

std::optional<std::pair<Ending, std::string>> ProcessorMail::ending() const {
  const std::lock_guard lock(mutex_);
  return ending_;
}

void ProcessorMail::Clear() {
  const std::lock_guard lock(mutex_);
  contents_ = {};
  unfinished_posts_ = 0;
  ending_.reset();
}

}  // namespace vmbfs::test_vmm
