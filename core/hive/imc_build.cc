#include "core/hive/imc_build.h"

#include <cstdint>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/hive/hive_reader.h"
#include "core/hive/hive_writer.h"
#include "core/hive/json_file.h"
#include "core/hive/policy_file.h"
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

// JSON begins with a brace; it may be in UTF-16, and have a byte order mark.
bool IsJson(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) {
    switch (std::to_integer<uint8_t>(byte)) {
      case '{':
        return true;
      case 0xEF:  // the marks, and the upper halves of UTF-16
      case 0xBB:
      case 0xBF:
      case 0xFF:
      case 0xFE:
      case 0:
      case ' ':
      case '\t':
      case '\r':
      case '\n':
        continue;
      default:
        return false;
    }
  }
  return false;
}

bool IsHive(std::span<const std::byte> bytes) {
  constexpr char kSignature[] = {'r', 'e', 'g', 'f'};
  return bytes.size() >= sizeof(kSignature) &&
         std::memcmp(bytes.data(), kSignature, sizeof(kSignature)) == 0;
}

// By its format, which its first bytes tell.
absl::Status AddInput(const ImcInput& input, ImcSettings& settings) {
  if (input.bytes.size() > kImcInputBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        input.name, ": ", input.bytes.size(), " bytes; at most ", kImcInputBytesMax, " are taken"));
  }
  if (IsHive(input.bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(input.name,
                     ": this is a hive already: attach it as it is, or build of what `imc show "
                     "--format json` makes of it"));
  }
  if (IsPolicyFile(input.bytes)) return AddPolicyFile(input.name, input.bytes, settings);
  if (IsJson(input.bytes)) return AddJsonFile(input.name, input.bytes, settings);
  return AddRegFile(input.name, input.bytes, settings);
}

}  // namespace

absl::StatusOr<ImcBuild> BuildImc(std::span<const ImcInput> inputs, const ImcOptions& options) {
  absl::StatusOr<ImcSettings> settings = ImcSettings::Create(options);
  if (!settings.ok()) return settings.status();
  for (const ImcInput& input : inputs) {
    const absl::Status added = AddInput(input, *settings);
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
