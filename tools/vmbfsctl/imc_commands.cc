#include "tools/vmbfsctl/imc_commands.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "core/blob/blob_store.h"
#include "core/hive/data_text.h"
#include "core/hive/explain.h"
#include "core/hive/hive_diff.h"
#include "core/hive/hive_reader.h"
#include "core/hive/imc_build.h"
#include "core/hive/imc_settings.h"
#include "core/hive/json_file.h"
#include "core/hive/reg_file.h"
#include "tools/vmbfs-guest/output_file.h"
#include "tools/vmbfsctl/ctl.h"
#include "tools/vmbfsctl/text.h"

namespace vmbfs::ctl {
namespace {

using Bytes = std::vector<std::byte>;

constexpr uintmax_t kFileBytesMax = hive::kImcInputBytesMax;

struct ImcArguments {
  std::vector<std::string> inputs;
  std::string file;
  std::string other_file;
  std::string output;
  std::string format = "tree";
  hive::ImcOptions options;
  bool wmi = false;
  bool reg = false;
};

// One line for each of the message; `place` comes before each.
int Fail(std::ostream& err, const absl::Status& status, const std::string& place = {}) {
  for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
    err << "vmbfsctl: " << Printable(absl::StrCat(place, line)) << "\n";
  }
  return kExitFailed;
}

void Warn(std::ostream& err, const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) {
    err << "vmbfsctl: warning: " << Printable(warning) << "\n";
  }
}

absl::StatusOr<Bytes> ReadFile(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(path, ": ", error.message()));
  if (size > kFileBytesMax) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": ", size, " bytes; at most ", kFileBytesMax, " are read"));
  }
  Bytes bytes(size);
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size))) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": it cannot be read"));
  }
  if (stream.peek() != std::ifstream::traits_type::eof()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": it has more bytes than its size says"));
  }
  return bytes;
}

// The argument that Hyper-V's SetInitialMachineConfigurationData takes: a length
// that counts itself, big-endian, then the hive (shared/specs/imc.md 1.1).
Bytes ForWmi(const Bytes& hive) {
  const size_t bytes = sizeof(uint32_t) + hive.size();
  Bytes data;
  data.reserve(bytes);
  for (int shift = 24; shift >= 0; shift -= 8) {
    data.push_back(static_cast<std::byte>(bytes >> shift));
  }
  data.insert(data.end(), hive.begin(), hive.end());
  return data;
}

int Build(const ImcArguments& arguments, std::ostream& out, std::ostream& err) {
  std::vector<hive::ImcInput> inputs;
  for (const std::string& path : arguments.inputs) {
    absl::StatusOr<Bytes> bytes = ReadFile(path);
    if (!bytes.ok()) return Fail(err, bytes.status());
    inputs.push_back({.name = path, .bytes = *std::move(bytes)});
  }
  const absl::StatusOr<hive::ImcBuild> build = hive::BuildImc(inputs, arguments.options);
  if (!build.ok()) return Fail(err, build.status());
  Warn(err, build->warnings);
  const Bytes bytes = arguments.wmi ? ForWmi(build->hive) : build->hive;
  if (const absl::Status status = WriteFileWhole(arguments.output, bytes); !status.ok()) {
    return Fail(err, status);
  }
  out << Sha256Hex(bytes) << "  " << Printable(arguments.output) << "\n";
  return kExitDone;
}

absl::StatusOr<hive::HiveReading> ReadHiveFile(const std::string& path) {
  const absl::StatusOr<Bytes> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<hive::HiveReading> reading = hive::ReadHive(*bytes);
  if (reading.ok()) return reading;
  return absl::Status(reading.status().code(),
                      absl::StrCat(path, ": ", reading.status().message()));
}

int Validate(const ImcArguments& arguments, std::ostream& out, std::ostream& err) {
  const absl::StatusOr<Bytes> bytes = ReadFile(arguments.file);
  if (!bytes.ok()) return Fail(err, bytes.status());
  const absl::StatusOr<hive::ImcValidation> validation = hive::ValidateImc(*bytes);
  if (!validation.ok()) return Fail(err, validation.status(), arguments.file + ": ");
  Warn(err, validation->warnings);
  out << Printable(arguments.file) << ": valid, " << validation->tree.key_count() << " keys\n";
  return kExitDone;
}

void PrintTree(const hive::RegistryTree& tree, std::ostream& out) {
  for (const hive::RegistryTree::KeyId id : tree.KeysInOrder()) {
    const std::string indent(2 * tree.key(id).depth, ' ');
    out << indent << hive::EscapedText(tree.key(id).name) << "\n";
    for (const hive::RegistryValue& value : tree.key(id).values) {
      out << indent << "  " << (value.name.empty() ? "(default)" : hive::EscapedText(value.name))
          << " = " << hive::DataText(value) << "  " << hive::TypeText(value.type) << "\n";
    }
  }
}

int Show(const ImcArguments& arguments, std::ostream& out, std::ostream& err) {
  const auto reading = ReadHiveFile(arguments.file);
  if (!reading.ok()) return Fail(err, reading.status());
  Warn(err, reading->warnings);
  if (arguments.format == "reg") {
    absl::StatusOr<std::string> text = hive::RegFileOf(reading->tree);
    if (!text.ok()) return Fail(err, text.status());
    out << hive::ForRegedit(*std::move(text));
  } else if (arguments.format == "json") {
    const absl::StatusOr<std::string> text = hive::JsonFileOf(reading->tree);
    if (!text.ok()) return Fail(err, text.status());
    out << *text;
  } else {
    PrintTree(reading->tree, out);
  }
  return kExitDone;
}

int Explain(const ImcArguments& arguments, std::ostream& out, std::ostream& err) {
  const auto reading = ReadHiveFile(arguments.file);
  if (!reading.ok()) return Fail(err, reading.status());
  Warn(err, reading->warnings);
  hive::ExplainHive(reading->tree, [&out](const std::string& line) { out << line << "\n"; });
  return kExitDone;
}

// As diff(1): 0 the same, 1 different; 2 when they cannot be compared.
int Diff(const ImcArguments& arguments, std::ostream& out, std::ostream& err) {
  const auto first = ReadHiveFile(arguments.file);
  const auto second = ReadHiveFile(arguments.other_file);
  for (const auto* reading : {&first, &second}) {
    if (reading->ok()) continue;
    Fail(err, reading->status());
    return kExitUsage;
  }
  const auto print = [&](const std::string& line) {
    if (!arguments.reg) out << line << "\n";
  };
  const hive::HiveDifferences differences =
      hive::DiffTrees(first->tree, second->tree, print, arguments.reg ? hive::kRegTextBytesMax : 0);
  if (arguments.reg && !differences.reg_file_is_whole) {
    Fail(err, absl::ResourceExhaustedError("the difference is too large for .reg text"));
    return kExitUsage;
  }
  if (arguments.reg) out << hive::ForRegedit(differences.reg_file);
  return differences.same ? kExitDone : kExitFailed;
}

using Command = int (*)(const ImcArguments&, std::ostream&, std::ostream&);

}  // namespace

void AddImcCommands(CLI::App& app, LocalCommand& chosen) {
  CLI::App* const imc = app.add_subcommand("imc",
                                           "Make, check, explain and compare machine configuration "
                                           "hives; only provision needs a daemon");
  imc->require_subcommand(1);
  const auto arguments = std::make_shared<ImcArguments>();
  const auto add = [imc, arguments, &chosen](const char* name, const char* description,
                                             Command command, int exit_failed = kExitFailed) {
    CLI::App* const added = imc->add_subcommand(name, description);
    added->callback([=, &chosen] {
      chosen = [=](std::ostream& out, std::ostream& err) {
        const int exit_code = command(*arguments, out, err);
        if (out.flush()) return exit_code;
        Fail(err, absl::InternalError("cannot write the output"));
        return exit_failed;
      };
    });
    return added;
  };

  CLI::App* const build = add("build", "Make a hive of .reg, JSON and registry.pol files", Build);
  build
      ->add_option("IN", arguments->inputs,
                   "Settings: .reg (version 5, UTF-8 or UTF-16), JSON (RegistryChanges of HCS, or "
                   "as `imc show --format json` prints), registry.pol; told apart by content")
      ->required();
  build->add_option("--output", arguments->output, "The hive to write")->required();
  build->add_option(
      "--sequence", arguments->options.sequence,
      "A machine takes a hive whose number it has not seen; 2 unless JSON gives another");
  build->add_flag("--rewrite-control-sets", arguments->options.rewrite_control_sets,
                  "Take ControlSet001 and its like for CurrentControlSet");
  build->add_flag("--force", arguments->options.force,
                  "Allow a sequence of 0 or 1, and values above 1 MiB");
  build->add_flag("--wmi", arguments->wmi,
                  "Write what Hyper-V's SetInitialMachineConfigurationData takes");

  add("validate", "Check a hive strictly", Validate)
      ->add_option("FILE", arguments->file)
      ->required();
  CLI::App* const show = add("show", "Show a hive's keys and values", Show);
  show->add_option("FILE", arguments->file)->required();
  show->add_option(
          "--format", arguments->format,
          "tree; reg, for regedit: UTF-16 where it is not all ASCII; json, for `imc build`")
      ->check(CLI::IsMember({"tree", "reg", "json"}).description(""))
      ->capture_default_str();
  add("explain", "Say what a hive will do to a machine", Explain)
      ->add_option("FILE", arguments->file)
      ->required();
  CLI::App* const diff =
      add("diff", "Compare two hives; exit code 0 same, 1 different, 2 not comparable", Diff,
          kExitUsage);
  diff->add_option("A", arguments->file)->required();
  diff->add_option("B", arguments->other_file)->required();
  diff->add_flag("--reg", arguments->reg, "Print the .reg file that leads from A to B");
}

}  // namespace vmbfs::ctl
