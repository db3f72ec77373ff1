#include "tools/vmbfsctl/provision.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/convert/utf8.h"
#include "tools/vmbfsctl/text.h"
#include "tools/vmbfsctl/upload.h"

namespace vmbfs::ctl {
namespace {

// What goes with the request itself; a server takes requests below 4 MiB.
constexpr uintmax_t kInlineBytesMax = 2 << 20;
// Of a file's name; cut and escaped it stays below what a server takes.
constexpr size_t kNameBytesMax = 200;

// The bytes of a regular file of at most so many; nullopt for any other file,
// which is UploadFile's to send or to refuse.
std::optional<std::string> ReadSmallFile(const std::string& path, uintmax_t bytes_max) {
  std::error_code error;
  const uintmax_t size_bytes = std::filesystem::file_size(path, error);
  if (error || size_bytes > bytes_max) return std::nullopt;
  std::string bytes(size_bytes, '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(bytes.data(), static_cast<std::streamsize>(size_bytes))) return std::nullopt;
  return bytes;
}

}  // namespace

absl::Status ProvisionImc(const Arguments& arguments, const Context& context) {
  v1::GetVmRequest vm;
  vm.set_name(absl::StrCat("vms/", arguments.vm));
  // No upload for a VM that is not there.
  if (absl::Status found = context.client.GetVm(vm).status(); !found.ok()) return found;

  v1::ProvisionImcRequest request;
  request.set_vm(vm.name());
  request.set_etag(arguments.etag);
  if (arguments.sequence) request.mutable_options()->set_sequence(*arguments.sequence);
  request.mutable_options()->set_rewrite_control_sets(arguments.rewrite_control_sets);
  request.mutable_options()->set_force(arguments.force);
  uintmax_t inline_bytes_left = kInlineBytesMax;
  for (const std::string& path : arguments.inputs) {
    v1::ImcInput& input = *request.add_inputs();
    input.set_name(rpc::ValidUtf8(Printable(path), kNameBytesMax));
    if (auto bytes = ReadSmallFile(path, inline_bytes_left); bytes.has_value()) {
      inline_bytes_left -= bytes->size();
      input.set_content(*std::move(bytes));
      continue;
    }
    const absl::StatusOr<v1::Blob> blob = UploadFile(context.client, path, context.timeout);
    if (!blob.ok()) return blob.status();
    input.set_blob(blob->name());
  }
  return ShowAttachment(context.client.ProvisionImc(request), context);
}

}  // namespace vmbfs::ctl
