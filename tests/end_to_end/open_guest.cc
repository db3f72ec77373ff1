#include "tests/end_to_end/open_guest.h"

#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "core/blob/blob_store.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"

namespace vmbfs {

absl::StatusOr<OpenGuest> OpenGuest::Start(const std::string& socket_path,
                                           std::string_view profile) {
  hyperv::GuestOptions options;
  options.socket_path = socket_path;
  options.profile =
      profile == "linux" ? hyperv::GuestProfile::kLinux : hyperv::GuestProfile::kFirmware;
  options.ram_bytes = 4 << 20;
  options.timeout = std::chrono::minutes(5);  // sanitizers on a busy machine are slow
  OpenGuest open;
  auto guest = hyperv::Guest::Start(options);
  if (!guest.ok()) return guest.status();
  open.guest_ = *std::move(guest);
  if (absl::Status status = open.guest_->Connect(); !status.ok()) return status;
  if (absl::Status status = open.Open(); !status.ok()) return status;
  return open;
}

absl::Status OpenGuest::Open() {
  const auto offer = guest_->WaitForOffer(kVmbfsInterfaceId, kImcInstanceId);
  if (!offer.ok()) return offer.status();
  auto channel = guest_->Open(*offer);
  if (!channel.ok()) return channel.status();
  channel_ = *std::move(channel);
  const auto agreed = VmbfsClient(*channel_).Negotiate();
  if (!agreed.ok()) return agreed.status();
  return *agreed ? absl::OkStatus() : absl::FailedPreconditionError("the version was refused");
}

absl::StatusOr<std::string> OpenGuest::ReadDigest() {
  const absl::StatusOr<std::vector<std::byte>> data = VmbfsClient(*channel_).ReadFile(u"imc.hiv");
  if (!data.ok()) return data.status();
  return Sha256Hex(*data);
}

absl::Status OpenGuest::Reopen() {
  if (absl::Status status = guest_->Close(std::move(channel_)); !status.ok()) return status;
  return Open();
}

absl::Status OpenGuest::Finish() {
  if (absl::Status status = guest_->Close(std::move(channel_)); !status.ok()) return status;
  return guest_->Unload();
}

}  // namespace vmbfs
