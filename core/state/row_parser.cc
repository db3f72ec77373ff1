#include "core/state/row_parser.h"

#include <limits>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "core/blob/blob_store.h"

namespace vmbfs::state {
namespace {

std::string Key(const std::optional<std::string>& text) {
  return text.has_value() ? absl::StrCat("\"", absl::CHexEscape(*text), "\"") : "(no text)";
}

// false: the column holds neither 0 nor 1.
bool ParseFlag(std::optional<int64_t> column, bool& flag) {
  flag = column == 1;
  return column == 0 || column == 1;
}

}  // namespace

absl::Status BadRow(const char* table, const std::string& key, const char* column) {
  return absl::DataLossError(absl::StrCat("state database: table ", table, ", row ", key,
                                          ": column ", column,
                                          " does not hold what this program writes; correct it"));
}

absl::StatusOr<VmRecord> ParseVm(const Statement& row) {
  const auto name = row.Text(0);
  const std::string key = Key(name);
  if (!name.has_value() || name->empty()) return BadRow("vms", key, "name");
  VmRecord vm;
  vm.name = *name;
  if (!row.IsNull(1)) {
    const auto owner = row.Integer(1);
    // The highest uid_t means "none".
    if (!owner.has_value() || *owner < 0 || *owner >= std::numeric_limits<uid_t>::max()) {
      return BadRow("vms", key, "owner_uid");
    }
    vm.owner_uid = static_cast<uid_t>(*owner);
  }
  const auto create_time_us = row.Integer(2);
  if (!create_time_us.has_value()) return BadRow("vms", key, "create_time_us");
  vm.create_time_us = *create_time_us;
  const auto revision = row.Integer(3);
  if (!revision.has_value() || *revision < 1) return BadRow("vms", key, "revision");
  vm.revision = static_cast<uint64_t>(*revision);
  if (!ParseFlag(row.Integer(4), vm.allow_unsealed_memory)) {
    return BadRow("vms", key, "allow_unsealed_memory");
  }
  if (!ParseFlag(row.Integer(5), vm.monitored)) return BadRow("vms", key, "monitored");
  return vm;
}

absl::StatusOr<AttachmentRecord> ParseAttachment(const Statement& row) {
  const auto vm = row.Text(0);
  const auto device = row.Text(1);
  const std::string key = absl::StrCat(Key(vm), ", ", Key(device));
  const auto bad = [&key](const char* column) { return BadRow("attachments", key, column); };
  if (!vm.has_value()) return bad("vm");
  if (!device.has_value()) return bad("device");
  const auto source_kind = row.Text(2);
  if (!source_kind.has_value()) return bad("source_kind");
  const auto sha256 = row.Text(3);
  if (!sha256.has_value() || !IsSha256Hex(*sha256)) return bad("sha256");
  const auto size_bytes = row.Integer(4);
  if (!size_bytes.has_value() || *size_bytes < 0) return bad("size_bytes");
  const auto file_name = row.Text(5);
  if (!file_name.has_value() || file_name->empty()) return bad("file_name");
  const auto create_time_us = row.Integer(6);
  if (!create_time_us.has_value()) return bad("create_time_us");
  const auto update_time_us = row.Integer(7);
  if (!update_time_us.has_value()) return bad("update_time_us");
  const auto revision = row.Integer(8);
  if (!revision.has_value() || *revision < 1) return bad("revision");
  return AttachmentRecord{.vm = *vm,
                          .device = *device,
                          .source_kind = *source_kind,
                          .sha256 = *sha256,
                          .size_bytes = static_cast<uint64_t>(*size_bytes),
                          .file_name = *file_name,
                          .create_time_us = *create_time_us,
                          .update_time_us = *update_time_us,
                          .revision = static_cast<uint64_t>(*revision)};
}

}  // namespace vmbfs::state
