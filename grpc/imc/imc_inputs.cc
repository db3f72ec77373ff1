#include "grpc/imc/imc_inputs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "core/hive/imc_settings.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/hives/hives.h"

namespace vmbfs::rpc {
namespace {

using Bytes = std::vector<std::byte>;

constexpr char kTooLarge[] = "IMC_TOO_LARGE";

Bytes BytesOf(const std::string& content) {
  const auto* data = reinterpret_cast<const std::byte*>(content.data());
  return {data, data + content.size()};
}

absl::StatusOr<Bytes> ReadBlobNamed(Host& host, const std::string& name, uint64_t bytes_max,
                                    std::string_view field) {
  const absl::StatusOr<std::string> sha256 = ParseBlobName(name, field);
  if (!sha256.ok()) return sha256.status();
  return ReadContent(host, *sha256, bytes_max, kTooLarge);
}

// The name that messages about the input at `index` begin with.
absl::StatusOr<std::string> NameOf(const v1::ImcInput& input, int index, const std::string& field) {
  if (input.name().empty()) return absl::StrCat("input ", index + 1);
  const bool shown = input.name().size() <= kInputNameBytesMax &&
                     std::none_of(input.name().begin(), input.name().end(), [](char c) {
                       return absl::ascii_iscntrl(static_cast<unsigned char>(c));
                     });
  if (shown) return input.name();
  return FieldError(absl::StrCat(field, ".name"), "INPUTS_INVALID",
                    absl::StrCat(field, ".name has control characters, or more than ",
                                 kInputNameBytesMax, " bytes"));
}

absl::StatusOr<hive::ImcInput> ReadInput(Host& host, const v1::ImcInput& input, int index,
                                         uint64_t bytes_max) {
  const std::string field = absl::StrCat("inputs[", index, "]");
  absl::StatusOr<std::string> name = NameOf(input, index, field);
  if (!name.ok()) return name.status();
  switch (input.source_case()) {
    case v1::ImcInput::kContent:
      return hive::ImcInput{.name = *std::move(name), .bytes = BytesOf(input.content())};
    case v1::ImcInput::kBlob: {
      absl::StatusOr<Bytes> bytes =
          ReadBlobNamed(host, input.blob(), bytes_max, absl::StrCat(field, ".blob"));
      if (!bytes.ok()) return bytes.status();
      return hive::ImcInput{.name = *std::move(name), .bytes = *std::move(bytes)};
    }
    case v1::ImcInput::SOURCE_NOT_SET:
      break;
  }
  return FieldError(field, "INPUTS_INVALID", absl::StrCat(field, " has no content and no blob"));
}

absl::StatusOr<std::vector<hive::ImcInput>> ReadInputs(
    Host& host, const google::protobuf::RepeatedPtrField<v1::ImcInput>& inputs) {
  if (inputs.empty() || inputs.size() > kInputsMax) {
    return FieldError(
        "inputs", "INPUTS_INVALID",
        absl::StrCat("the request has ", inputs.size(), " inputs: give 1 to ", kInputsMax));
  }
  std::vector<hive::ImcInput> read;
  uint64_t bytes_left = kInputsBytesMax;
  for (int i = 0; i < inputs.size(); ++i) {
    absl::StatusOr<hive::ImcInput> input = ReadInput(host, inputs[i], i, bytes_left);
    if (!input.ok()) return input.status();
    bytes_left -= std::min<uint64_t>(input->bytes.size(), bytes_left);
    read.push_back(*std::move(input));
  }
  return read;
}

}  // namespace

absl::StatusOr<hive::ImcBuild> BuildFrom(
    Host& host, const google::protobuf::RepeatedPtrField<v1::ImcInput>& inputs,
    const v1::ImcOptions& options) {
  hive::ImcOptions build_options;
  if (options.has_sequence()) build_options.sequence = options.sequence();
  build_options.rewrite_control_sets = options.rewrite_control_sets();
  build_options.force = options.force();
  const absl::Status sequence = hive::ImcSettings::Create(build_options).status();
  if (!sequence.ok()) return HiveError(sequence, "SEQUENCE_INVALID", "options.sequence");

  const absl::StatusOr<std::vector<hive::ImcInput>> read = ReadInputs(host, inputs);
  if (!read.ok()) return read.status();
  auto build = hive::BuildImc(*read, build_options);
  if (!build.ok()) return HiveError(build.status(), "IMC_INPUT_INVALID", "inputs");
  return build;
}

absl::StatusOr<Bytes> ReadHiveSource(Host& host, const v1::HiveSource& source,
                                     std::string_view field) {
  switch (source.source_case()) {
    case v1::HiveSource::kContent:
      return BytesOf(source.content());
    case v1::HiveSource::kBlob:
      return ReadBlobNamed(host, source.blob(), kImcBytesMax,
                           absl::StrCat(std::string(field), ".blob"));
    case v1::HiveSource::SOURCE_NOT_SET:
      break;
  }
  return FieldError(field, "SOURCE_MISSING",
                    absl::StrCat(std::string(field), " is missing: give a blob or content"));
}

}  // namespace vmbfs::rpc
