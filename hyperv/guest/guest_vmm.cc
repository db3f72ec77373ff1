#include "hyperv/guest/guest_vmm.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "hyperv/guest/channel_vmm.h"
#include "hyperv/guest/synic_vmm.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::chrono::milliseconds kHelloAgain{20};

std::unique_ptr<GuestVmm> MakeVmm(GuestLink link, GuestLinkSocket socket, const GuestRam& ram,
                                  std::span<const SynicPages> processors) {
  if (link == GuestLink::kChannel) {
    return std::make_unique<ChannelVmm>(std::move(socket), ram, processors);
  }
  return std::make_unique<SynicVmm>(
      std::move(socket), ram, processors,
      link == GuestLink::kMediated ? SynicDelivery::kMediated : SynicDelivery::kDirect);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GuestVmm>> GuestVmm::Connect(
    const std::string& socket_path, const std::string& label, const GuestRam& ram,
    std::span<const SynicPages> processors, Deadline deadline, GuestLink link,
    std::chrono::milliseconds hello_patience) {
  for (;;) {
    absl::StatusOr<GuestLinkSocket> socket = GuestLinkSocket::Connect(socket_path, deadline);
    if (!socket.ok()) return socket.status();
    std::unique_ptr<GuestVmm> vmm = MakeVmm(link, *std::move(socket), ram, processors);
    const Deadline hello_deadline =
        std::min(deadline, std::chrono::steady_clock::now() + hello_patience);
    absl::Status hello = vmm->SayHello(label, hello_deadline);
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

}  // namespace vmbfs::hyperv
