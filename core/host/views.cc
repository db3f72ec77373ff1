#include "core/host/views.h"

#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

FileContent ContentOf(const BackingSource& source) {
  return FileContent{
      .sha256 = source.sha256, .size_bytes = source.size_bytes, .name = source.file_name};
}

}  // namespace

std::string Etag(uint64_t revision) { return absl::StrCat("r", revision); }

BackingSource SourceOf(const AttachmentRecord& record) {
  return BackingSource{.kind = record.source_kind,
                       .sha256 = record.sha256,
                       .size_bytes = record.size_bytes,
                       .file_name = record.file_name};
}

AttachmentView MakeAttachmentView(const VmEntry& entry, DeviceKind device,
                                  const std::optional<VmStatus>& status) {
  const AttachmentRecord& record = entry.attachments.at(device);
  AttachmentView view;
  view.vm = entry.record.name;
  view.device = device;
  view.wanted = ContentOf(SourceOf(record));
  view.etag = Etag(record.revision);
  view.create_time_us = record.create_time_us;
  view.update_time_us = record.update_time_us;
  if (!status.has_value()) return view;
  for (const VmDeviceStatus& live : status->devices) {
    if (live.kind != device) continue;
    if (live.active.has_value()) view.active = ContentOf(*live.active);
    view.open = live.channel.open;
    view.fault = live.channel.fault;
  }
  return view;
}

VmView MakeVmView(const VmEntry& entry, const std::string& link_path,
                  const std::optional<VmStatus>& status) {
  VmView view;
  view.name = entry.record.name;
  view.owner_uid = entry.record.owner_uid;
  view.allow_unsealed_memory = entry.record.allow_unsealed_memory;
  view.monitored = entry.record.monitored;
  view.link_path = link_path;
  view.etag = Etag(entry.record.revision);
  view.create_time_us = entry.record.create_time_us;
  if (status.has_value()) {
    view.link_connected = status->link.connected;
  } else {
    view.live_error = "the VM's thread did not answer in time";
  }
  for (const auto& [device, record] : entry.attachments) {
    view.attachments.push_back(MakeAttachmentView(entry, device, status));
  }
  return view;
}

}  // namespace vmbfs
