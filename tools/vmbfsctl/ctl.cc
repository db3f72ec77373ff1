#include "tools/vmbfsctl/ctl.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <ostream>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "core/host/host.h"
#include "grpc/client/client.h"
#include "tools/version/version.h"
#include "tools/vmbfsctl/commands.h"
#include "tools/vmbfsctl/imc_commands.h"
#include "tools/vmbfsctl/output.h"
#include "tools/vmbfsctl/provision.h"
#include "tools/vmbfsctl/text.h"

namespace vmbfs::ctl {
namespace {

constexpr double kTimeoutSecondsMin = 0.001;
constexpr double kTimeoutSecondsMax = 86'400;
constexpr int kDepthMax = 32;

using Command = std::function<absl::Status(const Arguments&, const Context&)>;

// What the command line asks for.
struct Request {
  std::string server = "unix:/run/vmbfs/admin.sock";
  Format format = Format::kText;
  double timeout_seconds = 30;
  Arguments arguments;
  Command command;
};

void AddGlobalOptions(CLI::App& app, Request& request) {
  app.add_option("--server", request.server, "The daemon: unix:PATH or HOST:PORT")
      ->envname("VMBFS_SERVER")
      ->capture_default_str();
  const std::map<std::string, Format> formats{
      {"text", Format::kText}, {"json", Format::kJson}, {"yaml", Format::kYaml}};
  app.add_option("-o,--output", request.format, "text, json or yaml")
      ->transform(CLI::CheckedTransformer(formats).description(""))
      ->option_text("FORMAT [text]");
  app.add_option("--timeout", request.timeout_seconds,
                 "Seconds a call may take; an upload gets one more for every 4 MiB")
      ->check(CLI::Range(kTimeoutSecondsMin, kTimeoutSecondsMax))
      ->capture_default_str();
  app.set_version_flag("--version", std::string("vmbfsctl ") + kVersion);
}

CLI::App* AddCommand(CLI::App& parent, Request& request, const std::string& name,
                     const std::string& description, Command command) {
  CLI::App* added = parent.add_subcommand(name, description);
  added->callback([&request, command] { request.command = command; });
  return added;
}

void AddVmCommands(CLI::App& app, Request& request) {
  Arguments& arguments = request.arguments;
  CLI::App* vm = app.add_subcommand("vm", "Make, show, list and delete VMs");
  vm->require_subcommand(1);

  CLI::App* create = AddCommand(*vm, request, "create", "Make a VM and its link", CreateVm);
  create->add_option("NAME", arguments.vm)->required();
  create->add_option("--owner", arguments.owner_uid, "The user id that may connect to the link");
  create->add_flag("--allow-unsealed-memory", arguments.allow_unsealed_memory,
                   "Accept guest memory that its VMM can cut short while it is used, for VMMs "
                   "that cannot seal it; a VMM that does loses the channels that use it");
  create->add_flag("--monitored", arguments.monitored,
                   "Offer monitored channels, on which Linux 6.1's generic driver insists; costs "
                   "1,000 wake-ups a second while a guest has one open");

  CLI::App* get = AddCommand(*vm, request, "get", "Show a VM and its attachments", GetVm);
  get->add_option("NAME", arguments.vm)->required();

  CLI::App* list = AddCommand(*vm, request, "list", "List the VMs", ListVms);
  list->add_option("NAME", arguments.vm, "How their names begin; all VMs without it");

  CLI::App* remove = AddCommand(*vm, request, "delete", "Delete a VM", DeleteVm);
  remove->add_option("NAME", arguments.vm)->required();
  remove->add_flag(
      "--force", arguments.force,
      "Also while a guest has a channel open: revokes the offer, which firmware does not survive");
}

void AddDeviceArguments(CLI::App& command, Arguments& arguments) {
  command.add_option("VM", arguments.vm)->required();
  command.add_option("DEVICE", arguments.device, "imc or boot")
      ->required()
      ->check(CLI::IsMember({"imc", "boot"}).description(""));
}

void AddContentArguments(CLI::App& command, Arguments& arguments) {
  AddDeviceArguments(command, arguments);
  command.add_option("--file", arguments.file, "The file with the content")->required();
  command.add_option("--name", arguments.name,
                     "What the guest sees on boot; the file's own name without it");
  command.add_flag("--strict", arguments.strict,
                   "On imc: refuse a file that is no valid hive; without it that is a warning");
}

void AddAttachmentCommands(CLI::App& app, Request& request) {
  Arguments& arguments = request.arguments;
  AddContentArguments(
      *AddCommand(app, request, "attach", "Upload a file and give it to a VM", Attach), arguments);
  AddContentArguments(*AddCommand(app, request, "swap",
                                  "Upload a file for the VM's next channel open; an open channel "
                                  "goes on with what it has",
                                  Swap),
                      arguments);
  CLI::App* detach = AddCommand(app, request, "detach", "Take a device away from a VM", Detach);
  AddDeviceArguments(*detach, arguments);
  detach->add_flag("--force", arguments.force,
                   "Also while the guest has the channel open; its firmware does not survive that");

  CLI::App* inspect = AddCommand(app, request, "inspect", "Show live state", Inspect);
  inspect->add_option("PATH", arguments.path, "Where to begin; the root without it");
  inspect->add_option("--depth", arguments.depth, "Levels to show below it")
      ->check(CLI::Range(0, kDepthMax))
      ->capture_default_str();
}

// `imc provision`, which needs the daemon, beside the commands that do not.
void AddProvisionCommand(CLI::App& imc, Request& request) {
  Arguments& arguments = request.arguments;
  CLI::App* provision =
      AddCommand(imc, request, "provision",
                 "Make a hive in the daemon and give it to a VM: attaches or swaps imc, and may "
                 "be repeated",
                 ProvisionImc);
  provision->add_option("VM", arguments.vm)->required();
  provision->add_option("IN", arguments.inputs, "Files as imc build takes them")->required();
  provision->add_option("--sequence", arguments.sequence,
                        "A machine takes a hive whose number it has not seen; 2 without it");
  provision->add_flag("--rewrite-control-sets", arguments.rewrite_control_sets,
                      "Take ControlSet001 and its like for CurrentControlSet");
  provision->add_flag("--force", arguments.force,
                      "Allow a sequence of 0 or 1, and values above 1 MiB");
  provision->add_option("--etag", arguments.etag,
                        "Only replace the hive whose attachment has this etag");
}

// What else there is to say about an error, for a person at a shell.
const char* HintFor(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == rpc::kUnreachableReason) {
    return "; is vmbfsd running? Name its socket with --server or VMBFS_SERVER";
  }
  if (reason == rpc::kTimedOutReason) return "; try again, or with a longer --timeout";
  return "";
}

int ExitCodeOf(const absl::Status& status) {
  switch (rpc::OutcomeOf(status)) {
    case rpc::Outcome::kDone:
      return kExitDone;
    case rpc::Outcome::kNotFound:
      return kExitNotFound;
    case rpc::Outcome::kUnreachable:
      return kExitUnreachable;
    case rpc::Outcome::kFailed:
      break;
  }
  return kExitFailed;
}

int Run(const Request& request, std::ostream& out, std::ostream& err) {
  const std::chrono::milliseconds timeout(
      static_cast<std::chrono::milliseconds::rep>(request.timeout_seconds * 1000));
  const auto client = rpc::Client::Make(request.server, timeout);
  if (!client.ok()) {
    err << "vmbfsctl: --server: " << client.status().message() << "\n";
    return kExitUsage;
  }
  const Context context{**client, request.format, timeout, out, err};
  absl::Status status = request.command(request.arguments, context);
  if (status.ok() && !out.flush()) status = absl::InternalError("cannot write the output");
  if (!status.ok()) {
    // What is wrong with a hive may take several lines.
    for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
      err << "vmbfsctl: " << Printable(std::string(line)) << HintFor(status) << "\n";
    }
  }
  return ExitCodeOf(status);
}

}  // namespace

int RunCtl(std::vector<std::string> arguments, std::ostream& out, std::ostream& err) {
  CLI::App app{"Gives the VMs of a host their files, through vmbfsd.", "vmbfsctl"};
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable or timed out.\n"
      "Data goes to stdout, everything else to stderr.");
  app.fallthrough();  // options may follow the command
  app.require_subcommand(1);
  Request request;
  AddGlobalOptions(app, request);
  AddVmCommands(app, request);
  AddAttachmentCommands(app, request);
  LocalCommand local_command;
  AddImcCommands(app, local_command);
  AddProvisionCommand(*app.get_subcommand("imc"), request);

  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::Success& asked) {
    app.exit(asked, out, err);
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    err << "vmbfsctl: " << error.what() << "; see vmbfsctl --help\n";
    return kExitUsage;
  }
  return local_command ? local_command(out, err) : Run(request, out, err);
}

}  // namespace vmbfs::ctl
