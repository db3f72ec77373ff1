// What a request says about an attachment's source.

#pragma once

#include "absl/status/statusor.h"
#include "core/host/host.h"
#include "vmbfs/v1/attachment.pb.h"

namespace vmbfs::rpc {

// The parts of a source that a request sets; an update leaves the others as
// they are.
struct SourceUpdate {
  bool blob = false;
  bool file_name = false;
};

// By the request's mask, or by what is not empty when it has none.
// Errors: kInvalidArgument for a mask that names what cannot be set, and for a
// request that sets nothing.
absl::StatusOr<SourceUpdate> ParseSourceUpdate(const v1::UpdateAttachmentRequest& request);

// The content that `attachment` names, of any size.
// Errors: kInvalidArgument when the source or its blob is missing or malformed.
absl::StatusOr<FileContent> ParseSource(const v1::Attachment& attachment);

// The same for the parts in `update`, the others as in `current`.
absl::StatusOr<FileContent> MergeSource(const v1::Attachment& attachment,
                                        const SourceUpdate& update, const FileContent& current);

}  // namespace vmbfs::rpc
