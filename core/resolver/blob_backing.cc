#include "core/resolver/blob_backing.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/backing/host_file.h"
#include "core/backing/single_file_backing.h"
#include "core/path/guest_path.h"

namespace vmbfs {
namespace {

absl::StatusOr<std::shared_ptr<const Backing>> OpenBlob(BlobStore& blobs,
                                                        const BackingSource& source) {
  auto name = FileNameFromUtf8(source.file_name);
  if (!name.ok()) return name.status();
  auto fd = blobs.OpenForRead(source.sha256, source.size_bytes);
  if (!fd.ok()) return fd.status();
  auto file = HostFile::Create(*std::move(fd));
  if (!file.ok()) return file.status();
  return std::make_shared<const SingleFileBacking>(
      *std::move(name), *std::move(file),
      absl::StrCat("file ", source.file_name, ", ", source.size_bytes, " bytes, sha256 ",
                   source.sha256));
}

}  // namespace

absl::Status RegisterBlobKind(Resolver& resolver, BlobStore& blobs) {
  return resolver.Register(std::string(kBlobKind), [&blobs](const BackingSource& source) {
    return OpenBlob(blobs, source);
  });
}

}  // namespace vmbfs
