#include "core/host/request_checks.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/log/escape.h"
#include "core/path/guest_path.h"
#include "core/resolver/blob_backing.h"
#include "hyperv/link/link_server.h"

namespace vmbfs {
namespace {

using absl::StatusCode;

constexpr size_t kVmNameBytesMax = 63;

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
}

}  // namespace

absl::Status CheckVmName(const std::string& name) {
  if (!name.empty() && name.size() <= kVmNameBytesMax &&
      absl::ascii_isalnum(static_cast<unsigned char>(name[0])) &&
      std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return absl::OkStatus();
  }
  return HostError(
      StatusCode::kInvalidArgument, "VM_NAME_INVALID",
      absl::StrCat("\"", log::Escape(name, kVmNameBytesMax), "\" cannot name a VM; use 1 to ",
                   kVmNameBytesMax, " letters, digits, '.', '_' and '-', a letter or digit first"));
}

std::filesystem::path LinkPath(const std::filesystem::path& runtime_dir, const std::string& name) {
  return runtime_dir / "vm" / (name + ".sock");
}

absl::Status CheckLinkPath(const std::filesystem::path& path) {
  const size_t bytes = path.native().size();
  if (bytes <= hyperv::kSocketPathBytesMax) return absl::OkStatus();
  return HostError(StatusCode::kInvalidArgument, "LINK_PATH_TOO_LONG",
                   absl::StrCat("the link's path ", path.native(), " has ", bytes,
                                " bytes; a socket's path has at most ", hyperv::kSocketPathBytesMax,
                                ". Use a shorter VM name or runtime directory"));
}

absl::Status BlobError(const absl::Status& status) {
  const std::string message(status.message());
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
      return HostError(status.code(), "BLOB_DIGEST_INVALID", message);
    case StatusCode::kNotFound:
      return HostError(status.code(), "BLOB_NOT_FOUND", message);
    default:
      return HostError(StatusCode::kInternal, "BLOB_STORE_FAILED", message);
  }
}

absl::Status CheckOwner(std::optional<uid_t> owner_uid) {
  if (owner_uid != static_cast<uid_t>(-1)) return absl::OkStatus();
  return HostError(StatusCode::kInvalidArgument, "OWNER_INVALID",
                   absl::StrCat(*owner_uid, " is no user's number; give the VMM's user"));
}

absl::StatusOr<BackingSource> CheckContent(DeviceKind device, const FileContent& content,
                                           uint64_t boot_bytes_max, BlobStore& blobs) {
  const bool imc = device == DeviceKind::kImc;
  if (!imc) {
    if (const auto name = FileNameFromUtf8(content.name); !name.ok()) {
      return HostError(StatusCode::kInvalidArgument, "FILE_NAME_INVALID",
                       std::string(name.status().message()));
    }
  }
  const auto blob = blobs.Find(content.sha256);
  if (!blob.ok()) return BlobError(blob.status());
  if (content.size_bytes != 0 && content.size_bytes != blob->size_bytes) {
    return HostError(StatusCode::kInvalidArgument, "CONTENT_SIZE_MISMATCH",
                     absl::StrCat("blob ", blob->sha256, " has ", blob->size_bytes,
                                  " bytes, not the ", content.size_bytes, " of the request"));
  }
  const uint64_t bytes_min = imc ? 1 : 0;
  const uint64_t bytes_max = imc ? kImcBytesMax : boot_bytes_max;
  if (blob->size_bytes < bytes_min || blob->size_bytes > bytes_max) {
    return HostError(
        StatusCode::kInvalidArgument, "CONTENT_SIZE_INVALID",
        absl::StrCat("a file on device ", std::string(DeviceName(device)), " has ", bytes_min,
                     " to ", bytes_max, " bytes; blob ", blob->sha256, " has ", blob->size_bytes));
  }
  return BackingSource{.kind = std::string(kBlobKind),
                       .sha256 = blob->sha256,
                       .size_bytes = blob->size_bytes,
                       .file_name = imc ? kImcFileName : content.name};
}

}  // namespace vmbfs
