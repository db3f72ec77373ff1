#include "hyperv/guest/guest_driver.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_await.h"
#include "hyperv/message/message.h"

namespace vmbfs::hyperv {
namespace {

// Linux counts its GPADLs up from here, the firmware's handles are 1 to 255.
constexpr uint32_t kLinuxFirstGpadlId = 0xE1E10;
constexpr uint32_t kFirmwareFirstGpadlId = 1;

// Behind two SynIC pages for each processor: interrupt page, monitor pages.
constexpr size_t kContactPages = 3;
constexpr size_t kInterruptPage = 0;
constexpr size_t kParentToChildPage = 1;
constexpr size_t kChildToParentPage = 2;

absl::Status CheckOptions(const GuestOptions& options) {
  if (options.vp_count == 0 || options.vp_count > GuestDriver::kProcessorsMax) {
    return absl::InvalidArgumentError(absl::StrCat(options.vp_count, " processors; 1 to ",
                                                   GuestDriver::kProcessorsMax, " are possible"));
  }
  if (options.message_vp >= options.vp_count) {
    return absl::InvalidArgumentError(
        absl::StrCat("message_vp ", options.message_vp, " of ", options.vp_count, " processors"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Guest>> Guest::Start(const GuestOptions& options) {
  return GuestDriver::Create(options);
}

absl::StatusOr<std::unique_ptr<GuestDriver>> GuestDriver::Create(const GuestOptions& options) {
  if (absl::Status checked = CheckOptions(options); !checked.ok()) return checked;
  std::unique_ptr<GuestDriver> driver(new GuestDriver(options));
  if (absl::Status set_up = driver->SetUp(); !set_up.ok()) return set_up;
  return driver;
}

GuestDriver::GuestDriver(const GuestOptions& options)
    : options_(options),
      traits_(TraitsOf(options.profile)),
      next_gpadl_id_(options.profile == GuestProfile::kLinux ? kLinuxFirstGpadlId
                                                             : kFirmwareFirstGpadlId) {}

absl::Status GuestDriver::SetUp() {
  absl::StatusOr<std::unique_ptr<GuestRam>> ram = GuestRam::Create(options_.ram_bytes);
  if (!ram.ok()) return ram.status();
  ram_ = *std::move(ram);
  UniqueFd fd(fcntl(ram_->fd(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "duplicating guest RAM");
  absl::Status added = memory_.AddRegion(
      {.id = 1, .gpa = 0, .bytes = ram_->bytes().size(), .file_offset = 0}, std::move(fd));
  if (!added.ok()) return added;

  absl::StatusOr<std::shared_ptr<const GuestPages>> pages =
      AllocatePages(2 * options_.vp_count + kContactPages, RamLayout::kContiguous);
  if (!pages.ok()) return pages.status();
  fixed_pages_ = *std::move(pages);
  std::vector<SynicPages> processors;
  for (size_t vp = 0; vp < options_.vp_count; ++vp) {
    synics_.emplace_back(fixed_pages_->Page(2 * vp), fixed_pages_->Page(2 * vp + 1));
    processors.push_back(
        {.message_page_gpa = Gpa(2 * vp), .event_flags_page_gpa = Gpa(2 * vp + 1)});
  }
  absl::StatusOr<std::unique_ptr<GuestVmm>> vmm =
      GuestVmm::Connect(options_.socket_path, options_.label, *ram_, options_.vp_count, processors,
                        NextDeadline(), options_.link);
  if (!vmm.ok()) return vmm.status();
  vmm_ = *std::move(vmm);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const GuestPages>> GuestDriver::AllocatePages(size_t count,
                                                                             RamLayout layout) {
  absl::StatusOr<std::vector<uint64_t>> page_frames = ram_->Allocate(count, layout);
  if (!page_frames.ok()) return page_frames.status();
  return std::make_shared<const GuestPages>(*ram_, *std::move(page_frames));
}

uint64_t GuestDriver::Gpa(size_t fixed_page) const {
  return fixed_pages_->page_frames()[fixed_page] * kPageBytes;
}

size_t GuestDriver::ChildToParentPage() const { return 2 * options_.vp_count + kChildToParentPage; }

absl::Status GuestDriver::Connect() {
  const Deadline deadline = NextDeadline();
  const std::vector<uint32_t>& versions =
      options_.versions.empty() ? traits_.versions : options_.versions;
  EndConnection();
  for (uint32_t version : versions) {
    absl::StatusOr<bool> accepted = TryVersion(version, deadline);
    if (!accepted.ok()) return accepted.status();
    if (!*accepted) continue;
    phase_ = Phase::kEnumerating;
    absl::Status posted = Post(BuildHeaderOnly(MessageType::kRequestOffers), deadline);
    while (posted.ok() && phase_ == Phase::kEnumerating) posted = Pump(deadline);
    return posted;
  }
  phase_ = Phase::kDisconnected;
  return absl::FailedPreconditionError("the server accepts none of the guest's VMBus versions");
}

absl::StatusOr<bool> GuestDriver::TryVersion(uint32_t version, Deadline deadline) {
  const size_t contact_page = 2 * options_.vp_count;
  const ContactPages pages = {
      .interrupt_page_gpa = Gpa(contact_page + kInterruptPage),
      .parent_to_child_monitor_page_gpa = Gpa(contact_page + kParentToChildPage),
      .child_to_parent_monitor_page_gpa = Gpa(ChildToParentPage())};
  phase_ = Phase::kContacting;
  Expect(MessageType::kVersionResponse);
  absl::Status posted =
      PostTo(ContactConnection(options_.profile, version),
             BuildInitiateContact(options_.profile, version, options_.message_vp, pages), deadline);
  if (!posted.ok()) return posted;
  absl::StatusOr<TakenMessage> answer = NextAnswer(deadline, std::nullopt);
  if (!answer.ok()) return answer.status();
  VersionResponseMessage response;
  if (answer->bytes < sizeof(response)) return absl::DataLossError("short VersionResponse");
  std::memcpy(&response, answer->payload.data(), sizeof(response));
  if (response.version_supported == 0) return false;
  if (options_.profile == GuestProfile::kFirmware) {
    // Linux looks at neither.
    if (response.connection_state != kConnectionStateSuccess) return false;
    if (version >= kVersion6_0 && answer->bytes < sizeof(VersionResponse2Message)) {
      return absl::DataLossError("VersionResponse of 6.0 without features");
    }
  }
  version_ = version;
  message_connection_ = kMessageConnection;
  if (options_.profile == GuestProfile::kLinux && version >= kVersion5_0) {
    message_connection_ = response.message_connection_id.value();
  }
  return true;
}

// Whatever the guest knew of the host is gone; pages go back once nothing of
// ours is in them any more.
void GuestDriver::EndConnection() {
  phase_ = Phase::kDisconnected;
  version_ = 0;
  offers_.clear();
  rescinded_.clear();
  gpadls_.clear();
  for (auto& [id, channel] : channels_) channel->Revoke();
  channels_.clear();
}

std::string GuestDriver::version() const { return version_ == 0 ? "" : VersionText(version_); }

absl::StatusOr<GuestOffer> GuestDriver::WaitForOffer(const Guid& interface_id,
                                                     const Guid& instance_id) {
  const Deadline deadline = NextDeadline();
  for (;;) {
    for (const GuestOffer& offer : offers_) {
      if (offer.interface_id == interface_id && offer.instance_id == instance_id) return offer;
    }
    absl::Status pumped = Pump(deadline);
    if (absl::IsDeadlineExceeded(pumped)) {
      return absl::DeadlineExceededError(
          absl::StrCat("no channel ", instance_id.ToString(), " was offered in time"));
    }
    if (!pumped.ok()) return pumped;
  }
}

absl::Status GuestDriver::WaitForRescind(uint32_t channel_id) {
  const Deadline deadline = NextDeadline();
  absl::Status pumped;
  while (pumped.ok() && !rescinded_.contains(channel_id)) pumped = Pump(deadline);
  return pumped;
}

absl::Status GuestDriver::Unload() {
  const Deadline deadline = NextDeadline();
  if (version_ == 0) return absl::FailedPreconditionError("VMBus is not connected");
  phase_ = Phase::kUnloading;
  Expect(MessageType::kUnloadComplete);
  if (absl::Status posted = Post(BuildHeaderOnly(MessageType::kUnload), deadline); !posted.ok()) {
    return posted;
  }
  absl::StatusOr<HeaderOnlyMessage> complete = Await<HeaderOnlyMessage>(
      deadline, std::nullopt, [](const HeaderOnlyMessage&) { return true; });
  if (!complete.ok()) return complete.status();
  EndConnection();
  return absl::OkStatus();
}

absl::Status GuestDriver::ResetVm() {
  const Deadline deadline = NextDeadline();
  if (absl::Status reset = vmm_->Reset(deadline); !reset.ok()) return reset;
  EndConnection();
  answers_.clear();
  for (GuestSynic& synic : synics_) synic.Reset();
  return vmm_->EnableSynics(deadline);
}

uint32_t GuestDriver::PostRaw(uint32_t connection, std::span<const std::byte> message) {
  return vmm_->PostMessage(0, connection, message);
}

}  // namespace vmbfs::hyperv
