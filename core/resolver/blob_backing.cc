#include "core/resolver/blob_backing.h"

#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/backing/host_file.h"
#include "core/backing/single_file_backing.h"
#include "core/mutex/mutex.h"
#include "core/path/guest_path.h"

namespace vmbfs {
namespace {

// One open file for all backings of the same blob: a descriptor a blob in use,
// not one a VM.
//
// Thread safety: any thread. Bounds: entries of files that nobody has any more
// are at most as many as those in use, and kForgottenMax.
class OpenBlobs {
 public:
  explicit OpenBlobs(BlobStore& blobs) : blobs_(blobs) {}

  // Errors: as BlobStore::OpenForRead; also of a blob that is open already.
  absl::StatusOr<std::shared_ptr<const HostFile>> Open(const std::string& sha256,
                                                       uint64_t size_bytes) VMBFS_EXCLUDES(mutex_) {
    auto fd = blobs_.OpenForRead(sha256, size_bytes);
    if (!fd.ok()) return fd.status();
    struct stat status{};
    if (::fstat(fd->get(), &status) != 0) return absl::ErrnoToStatus(errno, "fstat of a blob");
    MutexLock lock(mutex_);
    Entry& entry = entries_[sha256];
    // A blob that was lost and came again is another file: what is open may be the
    // damaged one.
    if (auto open = entry.file.lock();
        open && entry.device == status.st_dev && entry.inode == status.st_ino) {
      return open;
    }
    auto file = HostFile::Create(*std::move(fd));
    if (!file.ok()) return file.status();
    std::shared_ptr<const HostFile> opened = *std::move(file);
    entry = {opened, status.st_dev, status.st_ino};
    ForgetClosed();
    return opened;
  }

 private:
  static constexpr size_t kForgottenMax = 64;
  struct Entry {
    std::weak_ptr<const HostFile> file;
    dev_t device = 0;
    ino_t inode = 0;
  };

  void ForgetClosed() VMBFS_REQUIRES(mutex_) {
    if (entries_.size() < forget_at_) return;
    std::erase_if(entries_, [](const auto& entry) { return entry.second.file.expired(); });
    forget_at_ = 2 * entries_.size() + kForgottenMax;
  }

  BlobStore& blobs_;
  Mutex mutex_;
  std::map<std::string, Entry> entries_ VMBFS_GUARDED_BY(mutex_);
  size_t forget_at_ VMBFS_GUARDED_BY(mutex_) = kForgottenMax;
};

absl::StatusOr<std::shared_ptr<const Backing>> OpenBlob(OpenBlobs& blobs,
                                                        const BackingSource& source) {
  auto name = FileNameFromUtf8(source.file_name);
  if (!name.ok()) return name.status();
  auto file = blobs.Open(source.sha256, source.size_bytes);
  if (!file.ok()) return file.status();
  return std::make_shared<const SingleFileBacking>(
      *std::move(name), *std::move(file),
      absl::StrCat("file ", source.file_name, ", ", source.size_bytes, " bytes, sha256 ",
                   source.sha256));
}

}  // namespace

absl::Status RegisterBlobKind(Resolver& resolver, BlobStore& blobs) {
  return resolver.Register(std::string(kBlobKind),
                           [open = std::make_shared<OpenBlobs>(blobs)](
                               const BackingSource& source) { return OpenBlob(*open, source); });
}

}  // namespace vmbfs
