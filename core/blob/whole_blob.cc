#include "core/blob/whole_blob.h"

#include <errno.h>
#include <unistd.h>

#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs {

absl::StatusOr<std::vector<std::byte>> ReadBlob(BlobStore& store, const std::string& sha256,
                                                uint64_t bytes_max) {
  const auto info = store.Find(sha256);
  if (!info.ok()) return info.status();
  if (info->size_bytes > bytes_max) {
    return absl::ResourceExhaustedError(absl::StrCat("blob ", sha256, " has ", info->size_bytes,
                                                     " bytes; at most ", bytes_max, " are read"));
  }
  const auto fd = store.OpenForRead(sha256, info->size_bytes);
  if (!fd.ok()) return fd.status();
  std::vector<std::byte> bytes(info->size_bytes);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        ::pread(fd->get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return absl::InternalError(
          absl::StrCat("cannot read blob ", sha256, ": ", std::generic_category().message(errno)));
    }
    if (count == 0) break;  // cut meanwhile: the digest says so
    done += static_cast<size_t>(count);
  }
  if (Sha256Hex(std::span(bytes).first(done)) != sha256) {
    return absl::DataLossError(
        absl::StrCat("blob ", sha256,
                     " has other bytes on disk than its name says; remove the "
                     "file and upload it again"));
  }
  return bytes;
}

absl::StatusOr<BlobInfo> StoreBlob(BlobStore& store, std::span<const std::byte> bytes) {
  const auto writer = store.Begin(bytes.size());
  if (!writer.ok()) return writer.status();
  if (absl::Status written = (*writer)->Write(bytes); !written.ok()) return written;
  return (*writer)->Finish(std::nullopt);
}

}  // namespace vmbfs
