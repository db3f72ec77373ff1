#include "core/host/host_impl.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/host/descriptor_room.h"
#include "core/host/inspect_tree.h"
#include "core/host/request_checks.h"
#include "core/host/views.h"
#include "core/log/escape.h"

namespace vmbfs {
namespace {

using absl::StatusCode;

const std::vector<DeviceKind> kAllDevices(std::begin(kDeviceKinds), std::end(kDeviceKinds));

absl::Status NoAnswer(const std::string& vm) {
  return HostError(StatusCode::kDeadlineExceeded, "VM_NOT_ANSWERING",
                   absl::StrCat("the thread that serves vm ", vm, " did not answer within ",
                                kStrandAnswerMax.count(), " s; nothing was changed. Try again"));
}

absl::Status StoreError(const absl::Status& status) {
  const bool full = status.code() == StatusCode::kResourceExhausted;
  return HostError(full ? StatusCode::kResourceExhausted : StatusCode::kInternal,
                   full ? "DISK_FULL" : "STATE_STORE_FAILED", std::string(status.message()));
}

absl::Status LinkError(const absl::Status& status) {
  const bool taken = status.code() == StatusCode::kFailedPrecondition;
  return HostError(status.code(), taken ? "LINK_PATH_TAKEN" : "LINK_FAILED",
                   std::string(status.message()));
}

absl::Status CheckEtag(const std::string& given, uint64_t revision, const std::string& what) {
  const std::string current = Etag(revision);
  if (given.empty() || given == current) return absl::OkStatus();
  return HostError(
      StatusCode::kAborted, "ETAG_MISMATCH",
      absl::StrCat(what, " has etag ", current, ", the request ", log::Escape(given, 64),
                   ": it has changed since. Read it again, and decide again"));
}

// Makes sure that no guest has one of the devices open, nor opens one, until the
// change that follows is applied or AllowOpen is called.
absl::Status RefuseOpen(const VmEntry& entry, const std::vector<DeviceKind>& devices) {
  const auto open = entry.vm->RefuseOpen(devices).Wait();
  if (!open.has_value()) {
    // It may be running at this moment; what it does is undone after it.
    (void)entry.vm->AllowOpen(devices);
    return NoAnswer(entry.record.name);
  }
  if (open->empty()) return absl::OkStatus();
  return HostError(StatusCode::kFailedPrecondition, "DEVICE_OPEN",
                   absl::StrCat("a guest has ",
                                absl::StrJoin(*open, " and ",
                                              [](std::string* out, DeviceKind kind) {
                                                out->append(DeviceName(kind));
                                              }),
                                " of vm ", entry.record.name,
                                " open; close it in the guest, shut the guest down, or use force"));
}

// Waits for what a stored change does to the live VM. It is done in any case: a
// strand that does not answer in time does it when it comes to it.
template <typename T>
std::optional<T> WaitForApplied(StrandAnswer<T> answer, const std::string& vm, const char* change) {
  std::optional<T> applied = answer.Wait();
  if (!applied.has_value()) {
    spdlog::warn("{} of vm {} is stored; its thread did not answer within {} s and applies it late",
                 change, vm, kStrandAnswerMax.count());
  }
  return applied;
}

}  // namespace

std::string HostImpl::LinkPathOf(const std::string& vm) const {
  return LinkPath(options_.runtime_dir, vm).string();
}

uint64_t HostImpl::upload_bytes_max() const {
  return std::max(kImcBytesMax, options_.boot_bytes_max);
}

absl::StatusOr<VmEntry> HostImpl::Require(const std::string& vm) const {
  auto entry = registry_.Find(vm);
  if (entry.has_value()) return *std::move(entry);
  return HostError(StatusCode::kNotFound, "VM_NOT_FOUND",
                   absl::StrCat("no vm is called \"", log::Escape(vm, 64), "\"; create it first"));
}

absl::StatusOr<VmEntry> HostImpl::RequireAttachment(const std::string& vm,
                                                    DeviceKind device) const {
  auto entry = Require(vm);
  if (!entry.ok() || entry->attachments.contains(device)) return entry;
  return HostError(StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND",
                   absl::StrCat("vm ", vm, " has nothing attached to ",
                                std::string(DeviceName(device)), "; attach something first"));
}

absl::StatusOr<VmView> HostImpl::CreateVm(const std::string& name, const VmOptions& options) {
  if (absl::Status status = CheckVmName(name); !status.ok()) return status;
  if (absl::Status status = CheckOwner(options.owner_uid); !status.ok()) return status;
  if (absl::Status status = CheckLinkPath(LinkPathOf(name)); !status.ok()) return status;
  const auto entry = CreateVmInOrder(name, options);
  if (!entry.ok()) return entry.status();
  return MakeVmView(*entry, LinkPathOf(name), entry->vm->Status().Wait());
}

absl::StatusOr<VmEntry> HostImpl::CreateVmInOrder(const std::string& name,
                                                  const VmOptions& options) {
  MutexLock lock(mutation_mutex_);
  if (registry_.Find(name).has_value()) {
    return HostError(StatusCode::kAlreadyExists, "VM_ALREADY_EXISTS",
                     absl::StrCat("vm ", name, " exists; choose another name or delete it first"));
  }
  if (registry_.size() >= kVmsMax) {
    return HostError(
        StatusCode::kResourceExhausted, "TOO_MANY_VMS",
        absl::StrCat("this host has ", kVmsMax, " VMs, as many as it may; delete one first"));
  }
  if (absl::Status room = CheckDescriptorRoom(kDescriptorsPerVm); !room.ok()) {
    return HostError(room.code(), "TOO_MANY_DESCRIPTORS", std::string(room.message()));
  }
  VmEntry entry;
  entry.record.name = name;
  entry.record.owner_uid = options.owner_uid;
  entry.record.allow_unsealed_memory = options.allow_unsealed_memory;
  entry.record.monitored = options.monitored;
  entry.record.create_time_us = now_us_();
  entry.vm =
      std::make_shared<Vm>(name, data_plane_, pool_, VmbfsDeviceOptions{options_.rdma_bytes_min});
  if (absl::Status status = entry.vm->Listen(LinkPathOf(name), options); !status.ok()) {
    return LinkError(status);
  }
  const auto revision = store_->InsertVm(entry.record);
  if (!revision.ok()) {
    (void)entry.vm->Stop().Wait();
    return StoreError(revision.status());
  }
  entry.record.revision = *revision;
  (void)WaitForApplied(entry.vm->Serve(), name, "creation");
  registry_.Put(entry);
  return entry;
}

absl::StatusOr<VmView> HostImpl::GetVm(const std::string& name) {
  const auto entry = Require(name);
  if (!entry.ok()) return entry.status();
  const auto status = entry->vm->Status().Wait();
  if (!status.has_value()) return NoAnswer(name);
  return MakeVmView(*entry, LinkPathOf(name), status);
}

absl::StatusOr<Host::VmPage> HostImpl::ListVms(const std::string& after, size_t limit) {
  limit = std::clamp<size_t>(limit, 1, kPageVmsMax);
  VmPage page;
  std::vector<VmEntry> entries = registry_.After(after, limit + 1);
  if (entries.size() > limit) {
    entries.resize(limit);
    page.next_after = entries.back().record.name;
  }
  // All are asked before one is waited for: they answer at the same time.
  std::vector<StrandAnswer<VmStatus>> answers;
  answers.reserve(entries.size());
  for (const VmEntry& entry : entries) answers.push_back(entry.vm->Status());
  const auto deadline = std::chrono::steady_clock::now() + kLiveAnswerMax;
  for (size_t i = 0; i < entries.size(); ++i) {
    page.vms.push_back(
        MakeVmView(entries[i], LinkPathOf(entries[i].record.name), answers[i].Wait(deadline)));
  }
  return page;
}

absl::Status HostImpl::DeleteVm(const std::string& name, bool force, const std::string& etag) {
  MutexLock lock(mutation_mutex_);
  const auto entry = Require(name);
  if (!entry.ok()) return entry.status();
  const std::string what = absl::StrCat("vm ", name);
  if (absl::Status status = CheckEtag(etag, entry->record.revision, what); !status.ok()) {
    return status;
  }
  if (!force) {
    if (absl::Status status = RefuseOpen(*entry, kAllDevices); !status.ok()) return status;
  }
  if (absl::Status status = store_->DeleteVm(name); !status.ok()) {
    if (!force) (void)entry->vm->AllowOpen(kAllDevices);
    return StoreError(status);
  }
  registry_.Erase(name);
  (void)WaitForApplied(entry->vm->Stop(), name, "deletion");
  return absl::OkStatus();
}

absl::StatusOr<LiveBacking> HostImpl::Resolve(DeviceKind device, const FileContent& content) {
  const auto source = CheckContent(device, content, options_.boot_bytes_max, *blobs_);
  if (!source.ok()) return source.status();
  auto backing = resolver_.Resolve(*source);
  if (!backing.ok()) return BlobError(backing.status());
  return backing;
}

absl::StatusOr<AttachmentView> HostImpl::Attach(const std::string& vm, DeviceKind device,
                                                const FileContent& content) {
  if (const auto entry = Require(vm); !entry.ok()) return entry.status();
  auto backing = Resolve(device, content);
  if (!backing.ok()) return backing.status();
  const auto entry = AttachInOrder(vm, device, *std::move(backing));
  if (!entry.ok()) return entry.status();
  return MakeAttachmentView(*entry, device, entry->vm->Status().Wait());
}

absl::StatusOr<VmEntry> HostImpl::AttachInOrder(const std::string& vm, DeviceKind device,
                                                LiveBacking backing) {
  MutexLock lock(mutation_mutex_);
  auto entry = Require(vm);
  if (!entry.ok()) return entry;
  if (entry->attachments.contains(device)) {
    return HostError(StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED",
                     absl::StrCat("vm ", vm, " has something attached to ",
                                  std::string(DeviceName(device)), "; swap it or detach it first"));
  }
  return AttachTo(*std::move(entry), device, std::move(backing));
}

absl::StatusOr<VmEntry> HostImpl::AttachTo(VmEntry entry, DeviceKind device, LiveBacking backing) {
  const std::string& vm = entry.record.name;
  if (!entry.vm->Status().Wait().has_value()) return NoAnswer(vm);

  const int64_t now_us = now_us_();
  AttachmentRecord record{.vm = vm,
                          .device = std::string(DeviceName(device)),
                          .source_kind = backing.source.kind,
                          .sha256 = backing.source.sha256,
                          .size_bytes = backing.source.size_bytes,
                          .file_name = backing.source.file_name,
                          .create_time_us = now_us,
                          .update_time_us = now_us};
  const auto revision = store_->InsertAttachment(record);
  if (!revision.ok()) return StoreError(revision.status());
  const auto applied =
      WaitForApplied(entry.vm->Attach(device, std::move(backing)), vm, "attachment");
  if (applied.has_value() && !applied->ok()) {
    (void)store_->DeleteAttachment(vm, record.device);
    return HostError(StatusCode::kInternal, "OFFER_FAILED", std::string(applied->message()));
  }
  record.revision = *revision;
  entry.record.revision = *revision;
  entry.attachments.emplace(device, std::move(record));
  registry_.Put(entry);
  return entry;
}

absl::StatusOr<AttachmentView> HostImpl::GetAttachment(const std::string& vm, DeviceKind device) {
  const auto entry = RequireAttachment(vm, device);
  if (!entry.ok()) return entry.status();
  const auto status = entry->vm->Status().Wait();
  if (!status.has_value()) return NoAnswer(vm);
  return MakeAttachmentView(*entry, device, status);
}

absl::StatusOr<AttachmentView> HostImpl::Swap(const std::string& vm, DeviceKind device,
                                              const FileContent& content, const std::string& etag) {
  if (const auto entry = RequireAttachment(vm, device); !entry.ok()) return entry.status();
  auto backing = Resolve(device, content);
  if (!backing.ok()) return backing.status();
  const auto entry = SwapInOrder(vm, device, *std::move(backing), etag);
  if (!entry.ok()) return entry.status();
  return MakeAttachmentView(*entry, device, entry->vm->Status().Wait());
}

absl::StatusOr<VmEntry> HostImpl::SwapInOrder(const std::string& vm, DeviceKind device,
                                              LiveBacking backing, const std::string& etag) {
  MutexLock lock(mutation_mutex_);
  auto entry = RequireAttachment(vm, device);
  if (!entry.ok()) return entry;
  const uint64_t revision = entry->attachments.at(device).revision;
  if (absl::Status status = CheckEtag(etag, revision, "the attachment"); !status.ok()) {
    return status;
  }
  return SwapOn(*std::move(entry), device, std::move(backing));
}

absl::StatusOr<VmEntry> HostImpl::SwapOn(VmEntry entry, DeviceKind device, LiveBacking backing) {
  const std::string& vm = entry.record.name;
  if (!entry.vm->Status().Wait().has_value()) return NoAnswer(vm);

  AttachmentRecord& record = entry.attachments.at(device);
  record.source_kind = backing.source.kind;
  record.sha256 = backing.source.sha256;
  record.size_bytes = backing.source.size_bytes;
  record.file_name = backing.source.file_name;
  record.update_time_us = now_us_();
  const auto revision = store_->UpdateAttachment(record);
  if (!revision.ok()) return StoreError(revision.status());
  (void)WaitForApplied(entry.vm->SetBacking(device, std::move(backing)), vm, "swap");
  record.revision = *revision;
  entry.record.revision = *revision;
  registry_.Put(entry);
  return entry;
}

absl::StatusOr<AttachmentView> HostImpl::AttachOrSwap(const std::string& vm, DeviceKind device,
                                                      const FileContent& content,
                                                      const std::string& etag) {
  if (const auto entry = Require(vm); !entry.ok()) return entry.status();
  auto backing = Resolve(device, content);
  if (!backing.ok()) return backing.status();
  const auto entry = AttachOrSwapInOrder(vm, device, *std::move(backing), etag);
  if (!entry.ok()) return entry.status();
  return MakeAttachmentView(*entry, device, entry->vm->Status().Wait());
}

absl::StatusOr<VmEntry> HostImpl::AttachOrSwapInOrder(const std::string& vm, DeviceKind device,
                                                      LiveBacking backing,
                                                      const std::string& etag) {
  MutexLock lock(mutation_mutex_);
  auto entry = Require(vm);
  if (!entry.ok()) return entry;
  const auto found = entry->attachments.find(device);
  if (found == entry->attachments.end()) {
    if (!etag.empty()) {
      return HostError(
          StatusCode::kAborted, "ETAG_MISMATCH",
          absl::StrCat("vm ", vm, " has nothing attached to ", std::string(DeviceName(device)),
                       " any more, so no etag fits; decide again, without one"));
    }
    return AttachTo(*std::move(entry), device, std::move(backing));
  }
  if (SourceOf(found->second) == backing.source) {
    // Set again all the same: the one before may have been lost or damaged on disk.
    (void)WaitForApplied(entry->vm->SetBacking(device, std::move(backing)), vm, "swap");
    return entry;
  }
  const uint64_t revision = found->second.revision;
  if (absl::Status status = CheckEtag(etag, revision, "the attachment"); !status.ok()) {
    return status;
  }
  return SwapOn(*std::move(entry), device, std::move(backing));
}

absl::Status HostImpl::Detach(const std::string& vm, DeviceKind device, bool force,
                              const std::string& etag) {
  MutexLock lock(mutation_mutex_);
  auto entry = RequireAttachment(vm, device);
  if (!entry.ok()) return entry.status();
  const AttachmentRecord& record = entry->attachments.at(device);
  if (absl::Status status = CheckEtag(etag, record.revision, "the attachment"); !status.ok()) {
    return status;
  }
  if (!force) {
    if (absl::Status status = RefuseOpen(*entry, {device}); !status.ok()) return status;
  }
  const auto revision = store_->DeleteAttachment(vm, record.device);
  if (!revision.ok()) {
    if (!force) (void)entry->vm->AllowOpen({device});
    return StoreError(revision.status());
  }
  (void)WaitForApplied(entry->vm->Detach(device), vm, "detachment");
  entry->record.revision = *revision;
  entry->attachments.erase(device);
  registry_.Put(*std::move(entry));
  return absl::OkStatus();
}

absl::StatusOr<inspect::Node> HostImpl::Inspect(std::string_view path, uint32_t depth) {
  const DaemonFacts facts{
      .state_dir = options_.state_dir.string(),
      .uptime_s = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                            std::chrono::steady_clock::now() - started_)
                                            .count()),
      .spin_us = options_.spin_us,
      .spin_percent = options_.spin_percent,
      .data_plane = data_plane_.status(),
      .vm_answer_max = kLiveAnswerMax};
  auto node = InspectTree(facts, registry_, path, depth);
  if (node.ok()) return node;
  return HostError(node.status().code(), "INSPECT_PATH_NOT_FOUND",
                   std::string(node.status().message()));
}

}  // namespace vmbfs
