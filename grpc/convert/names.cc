#include "grpc/convert/names.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/blob/blob_store.h"
#include "core/log/escape.h"
#include "grpc/convert/status.h"

namespace vmbfs::rpc {
namespace {

constexpr char kVms[] = "vms/";
constexpr char kAttachments[] = "/attachments/";
constexpr char kBlobs[] = "blobs/";
constexpr size_t kShownBytesMax = 100;
constexpr size_t kVmIdBytesMax = 63;

bool IsAlphanumeric(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); }

absl::Status WrongName(std::string_view name, std::string_view field, const char* form) {
  const std::string message =
      name.empty() ? absl::StrCat(" is missing: give ", form)
                   : absl::StrCat(" \"", log::Escape(name, kShownBytesMax), "\" is not ", form);
  return FieldError(field, "NAME_INVALID", std::string(field) + message);
}

// What follows `prefix`; nullopt when `name` does not begin with it.
std::optional<std::string_view> After(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  return name.substr(prefix.size());
}

}  // namespace

std::string VmName(const std::string& vm) { return absl::StrCat(kVms, vm); }

std::string AttachmentName(const std::string& vm, DeviceKind device) {
  return absl::StrCat(kVms, vm, kAttachments, std::string(DeviceName(device)));
}

std::string BlobName(const std::string& sha256) { return absl::StrCat(kBlobs, sha256); }

absl::Status CheckVmId(const std::string& id, std::string_view field) {
  const bool valid = !id.empty() && id.size() <= kVmIdBytesMax && IsAlphanumeric(id.front()) &&
                     std::all_of(id.begin(), id.end(), [](char c) {
                       return IsAlphanumeric(c) || c == '.' || c == '_' || c == '-';
                     });
  if (valid) return absl::OkStatus();
  return FieldError(
      field, "VM_NAME_INVALID",
      absl::StrCat("\"", log::Escape(id, kShownBytesMax), "\" cannot name a VM: use 1 to ",
                   kVmIdBytesMax, " letters, digits, '.', '_' and '-', a letter or digit first"));
}

absl::StatusOr<std::string> ParseVmName(std::string_view name, std::string_view field) {
  const std::optional<std::string_view> vm = After(name, kVms);
  if (!vm || vm->empty() || vm->find('/') != vm->npos) {
    return WrongName(name, field, "vms/{vm}");
  }
  return std::string(*vm);
}

absl::StatusOr<DeviceKind> ParseDevice(std::string_view id, std::string_view field) {
  const std::optional<DeviceKind> device = DeviceFromName(id);
  if (!device) return WrongName(id, field, "imc or boot");
  return *device;
}

absl::StatusOr<AttachmentId> ParseAttachmentName(std::string_view name, std::string_view field) {
  constexpr char kForm[] = "vms/{vm}/attachments/imc or vms/{vm}/attachments/boot";
  const size_t vm_end = name.find(kAttachments);
  if (vm_end == name.npos) return WrongName(name, field, kForm);
  absl::StatusOr<std::string> vm = ParseVmName(name.substr(0, vm_end), field);
  const std::optional<DeviceKind> device =
      DeviceFromName(name.substr(vm_end + std::size(kAttachments) - 1));
  if (!vm.ok() || !device) return WrongName(name, field, kForm);
  return AttachmentId{*std::move(vm), *device};
}

absl::StatusOr<std::string> ParseBlobName(std::string_view name, std::string_view field) {
  const std::optional<std::string_view> sha256 = After(name, kBlobs);
  if (!sha256 || !IsSha256Hex(*sha256)) {
    return WrongName(name, field, "blobs/{sha256} with 64 lower-case hexadecimal digits");
  }
  return std::string(*sha256);
}

}  // namespace vmbfs::rpc
