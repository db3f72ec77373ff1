#include "grpc/convert/views.h"

#include <google/protobuf/util/time_util.h>

#include <string>
#include <type_traits>
#include <variant>

#include "grpc/convert/names.h"
#include "grpc/convert/utf8.h"

namespace vmbfs::rpc {
namespace {

using google::protobuf::util::TimeUtil;

// A page of VMs stays below the 4 MiB that gRPC clients take.
constexpr size_t kFieldBytesMax = 512;
constexpr size_t kFileNameBytesMax = 1024;
constexpr size_t kInspectBytesMax = 4096;

std::string Field(const std::string& text) { return ValidUtf8(text, kFieldBytesMax); }

v1::FileSource ToFileSource(const FileContent& content) {
  v1::FileSource file;
  file.set_blob(BlobName(content.sha256));
  file.set_file_name(ValidUtf8(content.name, kFileNameBytesMax));
  return file;
}

}  // namespace

v1::Vm ToProto(const VmView& vm) {
  v1::Vm out;
  out.set_name(VmName(vm.name));
  if (vm.owner_uid) out.set_owner_uid(*vm.owner_uid);
  out.set_allow_unsealed_memory(vm.allow_unsealed_memory);
  out.set_monitored(vm.monitored);
  out.set_link_path(Field(vm.link_path));
  out.set_link_connected(vm.link_connected);
  out.set_live_error(Field(vm.live_error));
  out.set_etag(vm.etag);
  *out.mutable_create_time() = TimeUtil::MicrosecondsToTimestamp(vm.create_time_us);
  for (const AttachmentView& attachment : vm.attachments) {
    *out.add_attachments() = ToProto(attachment);
  }
  return out;
}

v1::Attachment ToProto(const AttachmentView& attachment) {
  v1::Attachment out;
  out.set_name(AttachmentName(attachment.vm, attachment.device));
  *out.mutable_file() = ToFileSource(attachment.wanted);
  out.set_size_bytes(static_cast<int64_t>(attachment.wanted.size_bytes));
  if (attachment.active) {
    *out.mutable_active()->mutable_file() = ToFileSource(*attachment.active);
    out.mutable_active()->set_size_bytes(static_cast<int64_t>(attachment.active->size_bytes));
  }
  out.set_open(attachment.open);
  out.set_fault(Field(attachment.fault));
  out.set_etag(attachment.etag);
  *out.mutable_create_time() = TimeUtil::MicrosecondsToTimestamp(attachment.create_time_us);
  *out.mutable_update_time() = TimeUtil::MicrosecondsToTimestamp(attachment.update_time_us);
  return out;
}

v1::Blob ToProto(const BlobInfo& blob) {
  v1::Blob out;
  out.set_name(BlobName(blob.sha256));
  out.set_sha256(blob.sha256);
  out.set_size_bytes(static_cast<int64_t>(blob.size_bytes));
  return out;
}

v1::Node ToProto(const inspect::Node& node) {
  v1::Node out;
  out.set_name(ValidUtf8(node.name, kInspectBytesMax));
  std::visit(
      [&out](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) out.set_bool_value(value);
        if constexpr (std::is_same_v<T, int64_t>) out.set_int_value(value);
        if constexpr (std::is_same_v<T, uint64_t>) out.set_uint_value(value);
        if constexpr (std::is_same_v<T, std::string>)
          out.set_string_value(ValidUtf8(value, kInspectBytesMax));
      },
      node.value);
  for (const inspect::Node& child : node.children) *out.add_children() = ToProto(child);
  out.set_truncated(node.truncated);
  return out;
}

}  // namespace vmbfs::rpc
