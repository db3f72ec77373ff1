#include "hyperv/guest/guest_vmm.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "hyperv/guest/channel_vmm.h"
#include "hyperv/guest/synic_vmm.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::chrono::milliseconds kHelloAgain{20};

constexpr uint64_t kSint2Vector = 0x41;  // not masked

std::unique_ptr<GuestVmm> MakeVmm(GuestLink link, GuestLinkSocket socket, const GuestRam& ram,
                                  uint32_t vp_count, std::span<const SynicPages> pages) {
  if (link == GuestLink::kChannel) {
    return std::make_unique<ChannelVmm>(std::move(socket), ram, vp_count, pages);
  }
  return std::make_unique<SynicVmm>(
      std::move(socket), ram, vp_count, pages,
      link == GuestLink::kMediated ? SynicDelivery::kMediated : SynicDelivery::kDirect);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestVmm>> GuestVmm::Connect(
    const std::string& socket_path, const std::string& label, const GuestRam& ram,
    uint32_t vp_count, std::span<const SynicPages> pages, Deadline deadline, GuestLink link,
    std::chrono::milliseconds hello_patience) {
  for (;;) {
    absl::StatusOr<GuestLinkSocket> socket = GuestLinkSocket::Connect(socket_path, deadline);
    if (!socket.ok()) return socket.status();
    std::unique_ptr<GuestVmm> vmm = MakeVmm(link, *std::move(socket), ram, vp_count, pages);
    const Deadline hello_deadline =
        std::min(deadline, std::chrono::steady_clock::now() + hello_patience);
    absl::Status hello = vmm->link_.SayHello(vmm->terms(), label, hello_deadline);
    if (hello.ok()) {
      if (absl::Status handed_over = vmm->HandOver(deadline); !handed_over.ok()) {
        return handed_over;
      }
      return vmm;
    }
    if (absl::IsDeadlineExceeded(hello)) {
      hello_patience = std::min(2 * hello_patience, kHelloPatienceMax);
      hello = absl::UnavailableError("link: the connection was accepted, but HELLO not answered");
    }
    // The backlog of a server that ends, or a VMM before us that is not gone yet.
    if (!absl::IsUnavailable(hello) || std::chrono::steady_clock::now() + kHelloAgain >= deadline) {
      return hello;
    }
    std::this_thread::sleep_for(kHelloAgain);
  }
}

GuestVmm::GuestVmm(GuestLinkSocket socket, const GuestRam& ram, uint32_t vp_count,
                   std::span<const SynicPages> pages)
    : synic_(ram, vp_count),
      link_(std::move(socket), [this](GuestLinkFrame frame) { HandleRequest(std::move(frame)); }),
      ram_(ram),
      pages_(pages.begin(), pages.end()) {
  for (uint32_t vp = 0; vp < vp_count; ++vp) {
    interrupts_.push_back(NewEventFd());
    acks_.push_back(NewEventFd());
  }
}

absl::Status GuestVmm::HandOver(Deadline deadline) {
  absl::Status result = link_.AddMemory(ram_, deadline);
  if (result.ok()) result = SetAllSynics(!pages_.empty(), deadline);
  if (result.ok()) result = link_.Send(LinkType::kStart, {}, deadline);
  return result;
}

absl::Status GuestVmm::SetAllSynics(bool enabled, Deadline deadline) {
  absl::Status result;
  for (uint32_t vp = 0; result.ok() && vp < vp_count(); ++vp) {
    SynicRegisters registers;
    if (enabled) {
      registers = {.scontrol = kSynicEnabled,
                   .siefp = pages_[vp].event_flags_page_gpa | kSynicEnabled,
                   .simp = pages_[vp].message_page_gpa | kSynicEnabled,
                   .sint2 = kSint2Vector};
    }
    result = SetSynic(vp, registers, deadline);
  }
  return result;
}

absl::Status GuestVmm::EnableSynics(Deadline deadline) { return SetAllSynics(true, deadline); }

absl::Status GuestVmm::Reset(Deadline deadline) {
  if (absl::Status off = SetAllSynics(false, deadline); !off.ok()) return off;
  ForgetGuest();
  const LinkResetWire reset{};
  return link_.Ask(LinkType::kReset, 0, PayloadBytes(reset), {}, deadline).status();
}

absl::Status GuestVmm::Pause(Deadline deadline) {
  return link_.Ask(LinkType::kPause, 0, {}, {}, deadline).status();
}

absl::Status GuestVmm::Resume(Deadline deadline) {
  return link_.Ask(LinkType::kResume, 0, {}, {}, deadline).status();
}

std::vector<int> GuestVmm::descriptors() const {
  std::vector<int> all = events();
  all.push_back(link_.fd());
  return all;
}

// The few descriptors that had nothing cost a call each.
absl::Status GuestVmm::Service() {
  link_.Service();
  TakeEvents();
  return link_.broken();
}

absl::Status GuestVmm::Wait(Deadline deadline) {
  if (!link_.broken().ok()) return link_.broken();
  std::vector<pollfd> fds;
  const auto add = [&](int fd) { fds.push_back({.fd = fd, .events = POLLIN, .revents = 0}); };
  for (const UniqueFd& interrupt : interrupts_) add(interrupt.get());
  for (const int fd : descriptors()) add(fd);
  if (!PollUntil(fds, deadline)) {
    return absl::DeadlineExceededError("the server did not answer in time");
  }
  const auto ready = [](const pollfd& fd) { return fd.revents != 0; };
  const auto others = fds.begin() + static_cast<ptrdiff_t>(interrupts_.size());
  const bool serve = std::any_of(others, fds.end(), ready);
  const absl::Status result = serve ? Service() : absl::OkStatus();
  // Service may have raised some.
  for (auto interrupt = fds.begin(); interrupt != others; ++interrupt) {
    if (serve || ready(*interrupt)) TakeEventFd(interrupt->fd);
  }
  return result;
}

LinkMsgResult GuestVmm::Deliver(uint32_t vp, uint32_t sint, uint32_t type,
                                std::span<const std::byte> payload) {
  const LinkMsgResult result = synic_.Deliver(vp, sint, type, payload);
  if (result == LinkMsgResult::kDelivered) Interrupt(vp);
  return result;
}

void GuestVmm::SetEventFlag(uint32_t vp, uint32_t flag) {
  if (synic_.SetEventFlag(vp, flag)) Interrupt(vp);
}

bool GuestVmm::SendNow(LinkType type, std::span<const std::byte> payload) {
  absl::Status sent = link_.Send(type, payload, VmmLink::SendDeadline());
  if (!sent.ok()) link_.Break(sent);
  return sent.ok();
}

}  // namespace vmbfs::hyperv
