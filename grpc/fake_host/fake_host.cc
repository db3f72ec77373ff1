#include "grpc/fake_host/fake_host.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace vmbfs::rpc {
namespace {

using absl::StatusCode;

constexpr int64_t kEpochUs = 1'700'000'000'000'000;

absl::Status CheckEtag(const std::string& given, const std::string& current) {
  if (given.empty() || given == current) return absl::OkStatus();
  return HostError(StatusCode::kAborted, "ETAG_MISMATCH", "it has changed: get it again");
}

absl::Status InUse() {
  return HostError(StatusCode::kFailedPrecondition, "CHANNEL_OPEN",
                   "the guest has its channel open: use force");
}

}  // namespace

// Blobs in a map.
class FakeHost::Blobs final : public BlobStore {
 public:
  explicit Blobs(std::shared_ptr<std::atomic<int>> uploads) : uploads_(std::move(uploads)) {}

  absl::StatusOr<std::unique_ptr<BlobWriter>> Begin(uint64_t bytes_max) override {
    return std::make_unique<Writer>(*this, bytes_max);
  }

  absl::StatusOr<BlobInfo> Find(const std::string& sha256) override {
    if (!IsSha256Hex(sha256)) return absl::InvalidArgumentError("not a digest");
    MutexLock lock(mutex_);
    const auto found = contents_.find(sha256);
    if (found == contents_.end()) {
      return HostError(StatusCode::kNotFound, "BLOB_NOT_FOUND", "no such blob: upload it first");
    }
    return BlobInfo{sha256, found->second.size()};
  }

  absl::StatusOr<hyperv::UniqueFd> OpenForRead(const std::string& sha256, uint64_t) override {
    if (const auto found = Find(sha256); !found.ok()) return found.status();
    hyperv::UniqueFd fd(::memfd_create("blob", MFD_CLOEXEC));
    MutexLock lock(mutex_);
    const std::vector<std::byte>& bytes = contents_[sha256];
    if (::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      return absl::InternalError("no memory for the blob");
    }
    return fd;
  }

  size_t count() {
    MutexLock lock(mutex_);
    return contents_.size();
  }

 private:
  class Writer final : public BlobWriter {
   public:
    Writer(Blobs& blobs, uint64_t bytes_max) : blobs_(blobs), bytes_max_(bytes_max) {
      ++*blobs_.uploads_;
    }
    ~Writer() override { --*blobs_.uploads_; }

    absl::Status Write(std::span<const std::byte> bytes) override {
      if (bytes.size() > bytes_max_ - bytes_.size()) {
        return absl::ResourceExhaustedError("too large");
      }
      bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
      return absl::OkStatus();
    }

    absl::StatusOr<BlobInfo> Finish(const std::optional<std::string>& expected_sha256) override {
      BlobInfo blob{Sha256Hex(bytes_), bytes_.size()};
      if (expected_sha256 && *expected_sha256 != blob.sha256) {
        return absl::InvalidArgumentError(
            absl::StrCat("the content has digest ", blob.sha256, ", not ", *expected_sha256));
      }
      MutexLock lock(blobs_.mutex_);
      blobs_.contents_[blob.sha256] = std::move(bytes_);
      return blob;
    }

   private:
    Blobs& blobs_;
    const uint64_t bytes_max_;
    std::vector<std::byte> bytes_;
  };

  const std::shared_ptr<std::atomic<int>> uploads_;
  Mutex mutex_;
  std::map<std::string, std::vector<std::byte>> contents_ VMBFS_GUARDED_BY(mutex_);
};

FakeHost::FakeHost(uint64_t upload_bytes_max)
    : upload_bytes_max_(upload_bytes_max), blobs_(std::make_unique<Blobs>(uploads_)) {}

FakeHost::~FakeHost() = default;

size_t FakeHost::blob_count() const { return blobs_->count(); }

BlobStore& FakeHost::blobs() { return *blobs_; }

void FakeHost::SetOpen(const std::string& vm, DeviceKind device, bool open) {
  MutexLock lock(mutex_);
  AttachmentView& attachment = **FindAttachment(vm, device);
  attachment.open = open;
  attachment.active.reset();
  if (open) attachment.active = attachment.wanted;
}

void FakeHost::SetFault(const std::string& vm, DeviceKind device, const std::string& fault) {
  MutexLock lock(mutex_);
  (*FindAttachment(vm, device))->fault = fault;
}

void FakeHost::SetTree(inspect::Node root) {
  MutexLock lock(mutex_);
  tree_ = std::move(root);
}

absl::StatusOr<VmView*> FakeHost::FindVm(const std::string& name) {
  const auto found = vms_.find(name);
  if (found != vms_.end()) return &found->second;
  return HostError(StatusCode::kNotFound, "VM_NOT_FOUND",
                   absl::StrCat("VM ", name, " does not exist: create it first"));
}

absl::StatusOr<AttachmentView*> FakeHost::FindAttachment(const std::string& vm, DeviceKind device) {
  const absl::StatusOr<VmView*> found = FindVm(vm);
  if (!found.ok()) return found.status();
  for (AttachmentView& attachment : (*found)->attachments) {
    if (attachment.device == device) return &attachment;
  }
  return HostError(StatusCode::kNotFound, "ATTACHMENT_NOT_FOUND",
                   absl::StrCat("VM ", vm, " has no ", std::string(DeviceName(device))));
}

std::string FakeHost::NextEtag() { return absl::StrCat(++changes_); }

absl::StatusOr<VmView> FakeHost::CreateVm(const std::string& name, const VmOptions& options) {
  MutexLock lock(mutex_);
  if (name.find('/') != name.npos) {
    return HostError(StatusCode::kInvalidArgument, "VM_NAME_INVALID", "a VM's name has no slash");
  }
  if (vms_.contains(name)) {
    return HostError(StatusCode::kAlreadyExists, "VM_ALREADY_EXISTS",
                     absl::StrCat("VM ", name, " exists already"));
  }
  VmView& vm = vms_[name];
  vm.name = name;
  vm.owner_uid = options.owner_uid;
  vm.allow_unsealed_memory = options.allow_unsealed_memory;
  vm.monitored = options.monitored;
  vm.link_path = absl::StrCat("/run/vmbfs/vm/", name, ".sock");
  vm.etag = NextEtag();
  vm.create_time_us = kEpochUs;
  return vm;
}

absl::StatusOr<VmView> FakeHost::GetVm(const std::string& name) {
  ++get_vm_waiting_;
  while (hold_get_vm_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  --get_vm_waiting_;
  MutexLock lock(mutex_);
  const absl::StatusOr<VmView*> vm = FindVm(name);
  if (!vm.ok()) return vm.status();
  return **vm;
}

absl::StatusOr<Host::VmPage> FakeHost::ListVms(const std::string& after, size_t limit) {
  MutexLock lock(mutex_);
  VmPage page;
  for (auto at = vms_.upper_bound(after); at != vms_.end(); ++at) {
    if (page.vms.size() == limit) {
      page.next_after = page.vms.back().name;
      break;
    }
    page.vms.push_back(at->second);
  }
  return page;
}

absl::Status FakeHost::DeleteVm(const std::string& name, bool force, const std::string& etag) {
  MutexLock lock(mutex_);
  const absl::StatusOr<VmView*> vm = FindVm(name);
  if (!vm.ok()) return vm.status();
  if (absl::Status same = CheckEtag(etag, (*vm)->etag); !same.ok()) return same;
  const auto& attachments = (*vm)->attachments;
  const bool open = std::any_of(attachments.begin(), attachments.end(),
                                [](const AttachmentView& attachment) { return attachment.open; });
  if (open && !force) return InUse();
  vms_.erase(name);
  return absl::OkStatus();
}

absl::StatusOr<FileContent> FakeHost::Resolve(DeviceKind device, const FileContent& content) {
  const absl::StatusOr<BlobInfo> blob = blobs_->Find(content.sha256);
  if (!blob.ok()) return blob.status();
  if (device == DeviceKind::kImc && (blob->size_bytes == 0 || blob->size_bytes > kImcBytesMax)) {
    return HostError(StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID",
                     absl::StrCat("a hive has 1 to ", kImcBytesMax, " bytes"));
  }
  FileContent resolved = content;
  resolved.size_bytes = blob->size_bytes;
  if (device == DeviceKind::kImc) resolved.name = "imc.hiv";
  return resolved;
}

absl::StatusOr<AttachmentView> FakeHost::Attach(const std::string& vm, DeviceKind device,
                                                const FileContent& content) {
  MutexLock lock(mutex_);
  const absl::StatusOr<VmView*> found = FindVm(vm);
  if (!found.ok()) return found.status();
  if (FindAttachment(vm, device).ok()) {
    return HostError(StatusCode::kAlreadyExists, "DEVICE_ALREADY_ATTACHED",
                     "exists already: swap it");
  }
  return AttachTo(**found, device, content);
}

absl::StatusOr<AttachmentView> FakeHost::AttachTo(VmView& vm, DeviceKind device,
                                                  const FileContent& content) {
  const absl::StatusOr<FileContent> resolved = Resolve(device, content);
  if (!resolved.ok()) return resolved.status();
  AttachmentView attachment;
  attachment.vm = vm.name;
  attachment.device = device;
  attachment.wanted = *resolved;
  attachment.etag = NextEtag();
  attachment.create_time_us = attachment.update_time_us = kEpochUs;
  const auto at = device == DeviceKind::kImc ? vm.attachments.begin() : vm.attachments.end();
  return *vm.attachments.insert(at, attachment);
}

absl::StatusOr<AttachmentView> FakeHost::GetAttachment(const std::string& vm, DeviceKind device) {
  MutexLock lock(mutex_);
  const absl::StatusOr<AttachmentView*> attachment = FindAttachment(vm, device);
  if (!attachment.ok()) return attachment.status();
  return **attachment;
}

absl::StatusOr<AttachmentView> FakeHost::Swap(const std::string& vm, DeviceKind device,
                                              const FileContent& content, const std::string& etag) {
  MutexLock lock(mutex_);
  const absl::StatusOr<AttachmentView*> attachment = FindAttachment(vm, device);
  if (!attachment.ok()) return attachment.status();
  return SwapOn(**attachment, content, etag);
}

absl::StatusOr<AttachmentView> FakeHost::SwapOn(AttachmentView& attachment,
                                                const FileContent& content,
                                                const std::string& etag) {
  if (absl::Status same = CheckEtag(etag, attachment.etag); !same.ok()) return same;
  const absl::StatusOr<FileContent> resolved = Resolve(attachment.device, content);
  if (!resolved.ok()) return resolved.status();
  attachment.wanted = *resolved;
  attachment.etag = NextEtag();
  return attachment;
}

absl::StatusOr<AttachmentView> FakeHost::AttachOrSwap(const std::string& vm, DeviceKind device,
                                                      const FileContent& content,
                                                      const std::string& etag) {
  MutexLock lock(mutex_);
  const absl::StatusOr<VmView*> found = FindVm(vm);
  if (!found.ok()) return found.status();
  const absl::StatusOr<AttachmentView*> attachment = FindAttachment(vm, device);
  if (attachment.ok() && (*attachment)->wanted.sha256 == content.sha256) return **attachment;
  if (attachment.ok()) return SwapOn(**attachment, content, etag);
  if (absl::Status same = CheckEtag(etag, ""); !same.ok()) return same;
  return AttachTo(**found, device, content);
}

absl::Status FakeHost::Detach(const std::string& vm, DeviceKind device, bool force,
                              const std::string& etag) {
  MutexLock lock(mutex_);
  const absl::StatusOr<AttachmentView*> attachment = FindAttachment(vm, device);
  if (!attachment.ok()) return attachment.status();
  if (absl::Status same = CheckEtag(etag, (*attachment)->etag); !same.ok()) return same;
  if ((*attachment)->open && !force) return InUse();
  std::erase_if((*FindVm(vm))->attachments,
                [device](const AttachmentView& other) { return other.device == device; });
  return absl::OkStatus();
}

absl::StatusOr<inspect::Node> FakeHost::Inspect(std::string_view path, uint32_t depth) {
  MutexLock lock(mutex_);
  return inspect::Select(tree_, path, depth);
}

}  // namespace vmbfs::rpc
