// From what the host shows to messages of vmbfs.v1.

#pragma once

#include "core/blob/blob_store.h"
#include "core/host/host.h"
#include "core/inspect/node.h"
#include "vmbfs/v1/attachment.pb.h"
#include "vmbfs/v1/blob.pb.h"
#include "vmbfs/v1/inspect.pb.h"
#include "vmbfs/v1/vm.pb.h"

namespace vmbfs::rpc {

v1::Vm ToProto(const VmView& vm);
v1::Attachment ToProto(const AttachmentView& attachment);
v1::Blob ToProto(const BlobInfo& blob);
v1::Node ToProto(const inspect::Node& node);

}  // namespace vmbfs::rpc
