#include "tests/real_guest/vmm/vmbus_link.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "hyperv/message/message_format.h"
#include "tests/real_guest/vmm/channel_level.h"
#include "tests/real_guest/vmm/synic_level.h"

namespace vmbfs::test_vmm {
namespace {

using hyperv::GuestLink;
using hyperv::LinkType;

constexpr std::chrono::seconds kHelloPatience{10};
constexpr std::chrono::milliseconds kHelloAgain{50};
constexpr std::chrono::seconds kAnswerPatience{60};
constexpr uint64_t kPageMask = ~uint64_t{0xfff};

}  // namespace

hyperv::UniqueFd NewEventFd() { return hyperv::UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

absl::StatusOr<std::unique_ptr<VmbusLink>> VmbusLink::Connect(const Options& options,
                                                              const hyperv::GuestRam& ram,
                                                              ProcessorMail& mail,
                                                              hyperv::Deadline deadline) {
  for (;;) {
    absl::StatusOr<hyperv::GuestLinkSocket> socket =
        hyperv::GuestLinkSocket::Connect(options.socket_path, deadline);
    if (!socket.ok()) return socket.status();
    std::unique_ptr<VmbusLink> link;
    if (options.form == GuestLink::kChannel) {
      link = std::make_unique<ChannelLevel>(options, *std::move(socket), ram, mail);
    } else {
      link = std::make_unique<SynicLevel>(options, *std::move(socket), ram, mail);
    }
    const auto now = std::chrono::steady_clock::now();
    absl::Status result = link->link_.SayHello(link->terms(), options.label,
                                               std::min(deadline, now + kHelloPatience));
    if (result.ok()) {
      result.Update(link->link_.AddMemory(ram, deadline));
      link->ResetSynics();
      if (result.ok()) result.Update(link->link_.Send(LinkType::kStart, {}, deadline));
      if (!result.ok()) return result;
      return link;
    }
    // Otherwise the server has answered, with a no.
    const bool again = absl::IsUnavailable(result) || absl::IsDeadlineExceeded(result);
    if (!again || now + kHelloAgain >= deadline) return result;
    std::this_thread::sleep_for(kHelloAgain);
  }
}

VmbusLink::VmbusLink(const Options& options, hyperv::GuestLinkSocket socket,
                     const hyperv::GuestRam& ram, ProcessorMail& mail,
                     hyperv::VmmLink::OnRequest on_request)
    : mail_(mail),
      link_(std::move(socket), std::move(on_request)),
      form_(options.form),
      ram_(ram),
      synic_(ram, std::vector<hyperv::SynicPages>(options.processors)) {
  synic_.SetEnabled(true);
  for (uint32_t vp = 0; vp < options.processors; ++vp) {
    irqs_.push_back(NewEventFd());
    acks_.push_back(NewEventFd());
  }
}

absl::Status VmbusLink::Attach(KvmMachine& machine) {
  machine_ = &machine;
  for (uint32_t vp = 0; vp < processors(); ++vp) {
    if (absl::Status routed = machine.RouteSint(vp, irq(vp), ack(vp)); !routed.ok()) return routed;
  }
  return AttachConnections();
}

std::vector<int> VmbusLink::descriptors() const {
  std::vector<int> descriptors = events();
  descriptors.push_back(link_.fd());
  descriptors.push_back(mail_.fd());
  // Otherwise the server has the other ends.
  if (delivers()) {
    for (const hyperv::UniqueFd& ack : acks_) descriptors.push_back(ack.get());
  }
  return descriptors;
}

// Looks after everything: the few descriptors that had nothing cost a call each.
absl::Status VmbusLink::Serve() {
  HandleMail(mail_.Take());
  link_.Service();
  HandleEvents();
  for (uint32_t vp = 0; delivers() && vp < processors(); ++vp) {
    uint64_t count = 0;
    if (read(ack(vp), &count, sizeof(count)) == sizeof(count)) HandleEndOfMessage(vp);
  }
  return link_.broken();
}

absl::Status VmbusLink::Reset() {
  mail_.Clear();
  ResetSynics();
  ForgetGuest();
  const hyperv::LinkResetWire reset{};
  const hyperv::Deadline deadline = std::chrono::steady_clock::now() + kAnswerPatience;
  return link_.Ask(LinkType::kReset, 0, hyperv::PayloadBytes(reset), {}, deadline).status();
}

void VmbusLink::ResetSynics() {
  ProcessorMail::Contents fresh;
  for (uint32_t vp = 0; vp < processors(); ++vp) fresh.synics[vp] = SynicState{};
  HandleMail(fresh);
}

void VmbusLink::SetPages(uint32_t vp, const SynicState& state) {
  const bool on = (state.scontrol & kSynicEnabled) != 0 && (state.sint2 & kSintMasked) == 0;
  // 0, for none, where a register is off or its page is no memory.
  const auto page = [&](uint64_t value) -> uint64_t {
    const uint64_t gpa = value & kPageMask;
    return on && (value & kSynicEnabled) != 0 && gpa < ram_.bytes().size() ? gpa : 0;
  };
  synic_.SetPages(
      vp, {.message_page_gpa = page(state.simp), .event_flags_page_gpa = page(state.siefp)});
}

void VmbusLink::SetEventFlag(uint32_t vp, uint32_t flag) {
  if (synic_.SetEventFlag(vp, flag)) hyperv::RingEventFd(irq(vp));
}

hyperv::LinkMsgResult VmbusLink::DeliverMessage(uint32_t vp, uint32_t sint, uint32_t type,
                                                std::span<const std::byte> message) {
  // No other source has a way to the guest here.
  if (sint != hyperv::kSynicVmbusSint) return hyperv::LinkMsgResult::kNoMessagePage;
  const hyperv::LinkMsgResult result = synic_.Deliver(vp, sint, type, message);
  if (result == hyperv::LinkMsgResult::kDelivered) hyperv::RingEventFd(irq(vp));
  return result;
}

}  // namespace vmbfs::test_vmm
