#include "tests/end_to_end/open_guest.h"

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "core/blob/blob_store.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest/guest_link.h"

namespace vmbfs {

namespace {

absl::StatusOr<std::string> DigestOf(hyperv::GuestChannel& channel, std::u16string_view name) {
  const absl::StatusOr<std::vector<std::byte>> data = VmbfsClient(channel).ReadFile(name);
  if (!data.ok()) return data.status();
  return Sha256Hex(*data);
}

}  // namespace

absl::StatusOr<OpenGuest> OpenGuest::Start(const std::string& socket_path, std::string_view profile,
                                           std::string_view vmm) {
  const std::optional<hyperv::GuestLink> link = hyperv::ParseGuestLink(vmm);
  if (!link) return absl::InvalidArgumentError("unknown VMM");
  hyperv::GuestOptions options;
  options.socket_path = socket_path;
  options.link = *link;
  options.profile =
      profile == "linux" ? hyperv::GuestProfile::kLinux : hyperv::GuestProfile::kFirmware;
  options.ram_bytes = 4 << 20;
  options.timeout = std::chrono::minutes(5);  // sanitizers on a busy machine are slow
  OpenGuest open;
  auto guest = hyperv::Guest::Start(options);
  if (!guest.ok()) return guest.status();
  open.guest_ = *std::move(guest);
  if (absl::Status status = open.guest_->Connect(); !status.ok()) return status;
  auto imc = open.Open(kImcInstanceId);
  if (!imc.ok()) return imc.status();
  open.imc_ = *std::move(imc);
  return open;
}

absl::StatusOr<std::unique_ptr<hyperv::GuestChannel>> OpenGuest::Open(
    const hyperv::Guid& instance) {
  const auto offer = guest_->WaitForOffer(kVmbfsInterfaceId, instance);
  if (!offer.ok()) return offer.status();
  auto channel = guest_->Open(*offer);
  if (!channel.ok()) return channel.status();
  const auto agreed = VmbfsClient(**channel).Negotiate();
  if (!agreed.ok()) return agreed.status();
  if (!*agreed) return absl::FailedPreconditionError("the version was refused");
  return channel;
}

absl::StatusOr<std::string> OpenGuest::ReadDigest() { return DigestOf(*imc_, u"imc.hiv"); }

absl::StatusOr<std::string> OpenGuest::ReadBootDigest(std::string_view name) {
  if (!boot_) {
    auto boot = Open(kBootInstanceId);
    if (!boot.ok()) return boot.status();
    boot_ = *std::move(boot);
  }
  return DigestOf(*boot_, std::u16string(name.begin(), name.end()));
}

absl::Status OpenGuest::Reopen() {
  if (absl::Status status = guest_->Close(std::move(imc_)); !status.ok()) return status;
  auto imc = Open(kImcInstanceId);
  if (!imc.ok()) return imc.status();
  imc_ = *std::move(imc);
  return absl::OkStatus();
}

absl::Status OpenGuest::Finish() {
  for (auto* channel : {&imc_, &boot_}) {
    if (!*channel) continue;
    if (absl::Status status = guest_->Close(std::move(*channel)); !status.ok()) return status;
  }
  return guest_->Unload();
}

}  // namespace vmbfs
