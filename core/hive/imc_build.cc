#include "core/hive/imc_build.h"

#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "core/hive/hive_reader.h"
#include "core/hive/hive_writer.h"
#include "core/hive/reg_file.h"

namespace vmbfs::hive {
namespace {

void Append(std::vector<std::string>& all, std::vector<std::string> more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

// Adds the warnings; the errors become the status.
absl::Status Check(const RegistryTree& tree, std::vector<std::string>& warnings) {
  ImcFindings findings = CheckImc(tree);
  Append(warnings, std::move(findings.warnings));
  if (findings.errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(findings.errors, "\n"));
}

}  // namespace

absl::StatusOr<ImcBuild> BuildImc(std::span<const ImcInput> inputs, const ImcOptions& options) {
  absl::StatusOr<ImcSettings> settings = ImcSettings::Create(options);
  if (!settings.ok()) return settings.status();
  for (const ImcInput& input : inputs) {
    const absl::Status added = AddRegFile(input.name, input.bytes, *settings);
    if (!added.ok()) return added;
  }
  ImcBuild build{.hive = {}, .warnings = settings->warnings()};
  if (absl::Status status = Check(settings->tree(), build.warnings); !status.ok()) return status;
  HiveWriteOptions write_options;
  if (options.force) write_options.value_bytes_max = write_options.hive_bytes_max;
  absl::StatusOr<WrittenHive> written = WriteHive(settings->tree(), write_options);
  if (!written.ok()) return written.status();
  Append(build.warnings, std::move(written->warnings));
  build.hive = std::move(written->bytes);
  return build;
}

absl::StatusOr<ImcValidation> ValidateImc(std::span<const std::byte> hive) {
  absl::StatusOr<HiveReading> reading = ReadHive(hive);
  if (!reading.ok()) return reading.status();
  ImcValidation validation{.tree = std::move(reading->tree),
                           .warnings = std::move(reading->warnings)};
  const absl::Status status = Check(validation.tree, validation.warnings);
  if (!status.ok()) return status;
  return validation;
}

}  // namespace vmbfs::hive
