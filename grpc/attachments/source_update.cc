#include "grpc/attachments/source_update.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/log/escape.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"

namespace vmbfs::rpc {
namespace {

constexpr int kMaskPathsMax = 8;
constexpr size_t kShownBytesMax = 100;

absl::Status MaskError(std::string_view message) {
  return FieldError("update_mask", "UPDATE_MASK_INVALID", message);
}

absl::StatusOr<SourceUpdate> ParseMask(const google::protobuf::FieldMask& mask) {
  if (mask.paths_size() > kMaskPathsMax) {
    return MaskError(absl::StrCat("update_mask has ", mask.paths_size(), " paths: give at most ",
                                  kMaskPathsMax));
  }
  SourceUpdate update;
  for (const std::string& path : mask.paths()) {
    const bool both = path == "*" || path == "file";
    if (!both && path != "file.blob" && path != "file.file_name") {
      return MaskError(absl::StrCat("update_mask names \"", log::Escape(path, kShownBytesMax),
                                    "\": give file, file.blob or file.file_name"));
    }
    update.blob |= both || path == "file.blob";
    update.file_name |= both || path == "file.file_name";
  }
  return update;
}

}  // namespace

absl::StatusOr<SourceUpdate> ParseSourceUpdate(const v1::UpdateAttachmentRequest& request) {
  if (request.has_update_mask() && request.update_mask().paths_size() > 0) {
    return ParseMask(request.update_mask());
  }
  const v1::FileSource& file = request.attachment().file();
  const SourceUpdate update{!file.blob().empty(), !file.file_name().empty()};
  if (!update.blob && !update.file_name) {
    return FieldError("attachment.file", "SOURCE_MISSING",
                      "the update sets nothing: give attachment.file with a blob");
  }
  return update;
}

absl::StatusOr<FileContent> ParseSource(const v1::Attachment& attachment) {
  if (!attachment.has_file()) {
    return FieldError("attachment.file", "SOURCE_MISSING",
                      "the attachment has no source: give attachment.file with a blob");
  }
  absl::StatusOr<std::string> sha256 =
      ParseBlobName(attachment.file().blob(), "attachment.file.blob");
  if (!sha256.ok()) return sha256.status();
  return FileContent{.sha256 = *std::move(sha256), .name = attachment.file().file_name()};
}

absl::StatusOr<FileContent> MergeSource(const v1::Attachment& attachment,
                                        const SourceUpdate& update, const FileContent& current) {
  FileContent merged = current;
  if (update.blob) {
    absl::StatusOr<FileContent> source = ParseSource(attachment);
    if (!source.ok()) return source.status();
    merged = *std::move(source);
    merged.name = current.name;
  }
  if (update.file_name) merged.name = attachment.file().file_name();
  return merged;
}

}  // namespace vmbfs::rpc
