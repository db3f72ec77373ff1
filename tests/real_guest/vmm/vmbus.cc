#include "tests/real_guest/vmm/vmbus.h"

#include <chrono>
#include <utility>

#include "hyperv/guest/vmm_link.h"

namespace vmbfs::test_vmm {
namespace {

constexpr std::chrono::minutes kPatience{2};

hyperv::Deadline NextDeadline() { return std::chrono::steady_clock::now() + kPatience; }

}  // namespace

absl::Status Vmbus::Connect(const hyperv::GuestRam& ram) {
  auto vmm = hyperv::GuestVmm::Connect(options_.socket_path, options_.label, ram,
                                       options_.processors, {}, NextDeadline(), options_.form);
  if (!vmm.ok()) return vmm.status();
  vmm_ = *std::move(vmm);
  return absl::OkStatus();
}

uint16_t Vmbus::PostMessage(uint32_t vp, uint32_t connection, std::span<const std::byte> message) {
  const std::lock_guard lock(mutex_);
  return static_cast<uint16_t>(vmm_->PostMessage(vp, connection, message));
}

void Vmbus::SignalEvent(uint32_t connection) {
  const std::lock_guard lock(mutex_);
  vmm_->SignalEvent(connection);
}

void Vmbus::SetSynic(uint32_t vp, const hyperv::SynicRegisters& registers) {
  const std::lock_guard lock(mutex_);
  failure_.Update(vmm_->SetSynic(vp, registers, hyperv::VmmLink::SendDeadline()));
}

absl::Status Vmbus::SetRoute(hyperv::GuestVmm::RouteConnection route) {
  const std::lock_guard lock(mutex_);
  return vmm_->SetRoute(std::move(route));
}

std::vector<int> Vmbus::descriptors() {
  const std::lock_guard lock(mutex_);
  std::vector<int> all = vmm_->descriptors();
  for (uint32_t vp = 0; hears_acks() && vp < options_.processors; ++vp) all.push_back(ack_fd(vp));
  return all;
}

absl::Status Vmbus::Serve() {
  const std::lock_guard lock(mutex_);
  absl::Status result = failure_;
  result.Update(vmm_->Service());
  for (uint32_t vp = 0; hears_acks() && vp < options_.processors; ++vp) {
    if (hyperv::TakeEventFd(ack_fd(vp))) vmm_->EndOfMessage(vp);
  }
  return result;
}

absl::Status Vmbus::Reset() {
  const std::lock_guard lock(mutex_);
  return vmm_->Reset(NextDeadline());
}

}  // namespace vmbfs::test_vmm
