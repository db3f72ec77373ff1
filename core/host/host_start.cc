// From options and recorded state to a serving Host, and its end.

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/host/descriptor_room.h"
#include "core/host/host_impl.h"
#include "core/host/request_checks.h"
#include "core/host/runtime_directory.h"
#include "core/host/views.h"
#include "core/log/escape.h"
#include "core/resolver/blob_backing.h"

namespace vmbfs {
namespace {

int64_t SystemNowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

absl::Status Prefixed(const std::string& prefix, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Host>> Host::Start(const HostOptions& options) {
  // Takes the lock: nothing below is touched before.
  auto store = OpenStateStore(options.state_dir);
  if (!store.ok()) return store.status();
  return HostImpl::Start(options, *std::move(store), &SystemNowUs);
}

absl::StatusOr<std::unique_ptr<Host>> HostImpl::Start(const HostOptions& options,
                                                      std::unique_ptr<StateStore> store,
                                                      WallClock now_us) {
  std::unique_ptr<HostImpl> host(new HostImpl(options, std::move(store), std::move(now_us)));
  auto blobs = BlobStore::Open(options.state_dir / "blobs");
  if (!blobs.ok()) return blobs.status();
  host->blobs_ = *std::move(blobs);
  if (absl::Status status = RegisterBlobKind(host->resolver_, *host->blobs_); !status.ok()) {
    return status;
  }
  if (absl::Status status = PrepareRuntimeDirectory(options.runtime_dir); !status.ok()) {
    return status;
  }
  if (absl::Status status = host->Load(); !status.ok()) return status;
  return host;
}

HostImpl::HostImpl(const HostOptions& options, std::unique_ptr<StateStore> store, WallClock now_us)
    : options_(options),
      now_us_(std::move(now_us)),
      store_(std::move(store)),
      pool_(std::max(options.blocking_threads, 1u)),
      data_plane_(options.data_plane_threads, {.window = std::chrono::microseconds(options.spin_us),
                                               .percent_max = options.spin_percent}) {}

HostImpl::~HostImpl() {
  std::vector<StrandAnswer<Done>> stops;
  for (const VmEntry& entry : registry_.After("", kVmsMax)) stops.push_back(entry.vm->Stop());
  for (const std::string& name : registry_.Names()) registry_.Erase(name);
  const auto deadline = std::chrono::steady_clock::now() + kStrandAnswerMax;
  for (StrandAnswer<Done>& stop : stops) (void)stop.Wait(deadline);
  // Work on the pool ends on a strand, so the strands end last.
  pool_.join();
  data_plane_.Stop();
}

absl::Status HostImpl::Load() {
  const auto contents = store_->Load();
  if (!contents.ok()) return contents.status();
  for (const VmRecord& record : contents->vms) {
    if (absl::Status status = LoadVm(record); !status.ok()) return status;
  }
  for (const AttachmentRecord& record : contents->attachments) {
    if (absl::Status status = LoadAttachment(record); !status.ok()) return status;
  }
  // What is not there now fails later in the midst of other work.
  if (absl::Status room = CheckDescriptorsToStart(); !room.ok()) {
    return Prefixed(absl::StrCat(contents->vms.size(), " VMs"), room);
  }
  for (const VmEntry& entry : registry_.After("", kVmsMax)) (void)entry.vm->Serve();
  return absl::OkStatus();
}

absl::Status HostImpl::LoadVm(const VmRecord& record) {
  if (absl::Status status = CheckVmName(record.name); !status.ok()) {
    return absl::DataLossError(absl::StrCat("state database: table vms: ", status.message()));
  }
  if (registry_.size() >= kVmsMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the state holds more than the ", kVmsMax, " VMs a host can have"));
  }
  auto vm = std::make_shared<Vm>(record.name, data_plane_, pool_,
                                 VmbfsDeviceOptions{options_.rdma_bytes_min});
  const VmOptions options{.owner_uid = record.owner_uid,
                          .allow_unsealed_memory = record.allow_unsealed_memory,
                          .monitored = record.monitored};
  if (absl::Status status = vm->Listen(LinkPathOf(record.name), options); !status.ok()) {
    return Prefixed(absl::StrCat("vm ", record.name), status);
  }
  registry_.Put(VmEntry{.record = record, .attachments = {}, .vm = std::move(vm)});
  return absl::OkStatus();
}

absl::Status HostImpl::LoadAttachment(const AttachmentRecord& record) {
  const std::string place =
      absl::StrCat("state database: table attachments, row \"", log::Escape(record.vm), "\", \"",
                   log::Escape(record.device), "\"");
  auto entry = registry_.Find(record.vm);
  if (!entry.has_value()) return absl::DataLossError(absl::StrCat(place, ": no such VM"));
  const auto device = DeviceFromName(record.device);
  if (!device.has_value()) return absl::DataLossError(absl::StrCat(place, ": no such device"));
  const BackingSource source = SourceOf(record);
  auto backing = resolver_.Resolve(source);
  if (backing.status().code() == absl::StatusCode::kInvalidArgument) {
    return absl::DataLossError(absl::StrCat(place, ": ", backing.status().message()));
  }
  if (!backing.ok()) {
    // Other VMs must be served all the same, and this guest is told so at each read.
    spdlog::error(
        "content of vm {} device {} cannot be read: {}. Upload it again and restart, "
        "or swap the device to other content",
        record.vm, record.device, std::string(backing.status().message()));
    backing = MakeUnreadableBacking(source, backing.status());
    if (!backing.ok()) return Prefixed(place, backing.status());
  }
  // Not waited for: the strand does it before it serves.
  (void)entry->vm->Attach(*device, *std::move(backing));
  entry->attachments.emplace(*device, record);
  registry_.Put(*std::move(entry));
  return absl::OkStatus();
}

}  // namespace vmbfs
