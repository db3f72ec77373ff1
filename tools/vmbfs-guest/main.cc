// vmbfs-guest: asks for one file as a guest would, over a VM's link socket.
//
// Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable or timed
// out. Data goes to stdout, everything else to stderr.

#include <unicode/ustring.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/guid/guid.h"
#include "tools/version/version.h"
#include "tools/vmbfs-guest/output_file.h"

namespace vmbfs {
namespace {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kNotFound = 3, kUnreachable = 4 };

constexpr double kTimeoutSecondsMax = 86'400;

struct Arguments {
  std::string socket_path;
  hyperv::GuestProfile profile = hyperv::GuestProfile::kFirmware;
  hyperv::GuestLink link = hyperv::GuestLink::kDirect;
  hyperv::GuestSignal signal = hyperv::GuestSignal::kEvent;
  hyperv::Guid instance_id;
  double timeout_seconds = 30;
  std::string path;
  std::u16string path_utf16;
  std::string output_file;  // empty: stdout
  bool read = false;        // otherwise info
  bool rdma = true;         // where the device offers it
};

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnreachable;
    default:
      return kFailed;
  }
}

// The units as they are: what `.`, `..` and separators mean is the device's to
// say. nullopt for bytes that are no UTF-8.
std::optional<std::u16string> Utf16FromUtf8(const std::string& text) {
  if (text.size() > std::numeric_limits<int32_t>::max()) return std::nullopt;
  std::u16string units(text.size(), u'\0');
  int32_t length = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strFromUTF8(units.data(), static_cast<int32_t>(units.size()), &length, text.data(),
                static_cast<int32_t>(text.size()), &error);
  if (U_FAILURE(error)) return std::nullopt;
  units.resize(static_cast<size_t>(length));
  return units;
}

// Writes to FILE or stdout. An error of the local file system is not the
// device's "not found", whatever its number.
absl::Status Output(const Arguments& arguments, std::span<const std::byte> data) {
  const absl::Status result = arguments.output_file.empty()
                                  ? WriteAll(STDOUT_FILENO, data)
                                  : WriteFileWhole(arguments.output_file, data);
  if (result.ok()) return result;
  return absl::InternalError(absl::StrCat("output: ", result.message()));
}

absl::Status PrintInfo(VmbfsClient& client, const Arguments& arguments) {
  absl::StatusOr<FileInfoAnswer> info = client.GetFileInfo(arguments.path_utf16);
  if (!info.ok()) return info.status();
  if (info->status == FileStatus::kNotFound) {
    return absl::NotFoundError(absl::StrCat(arguments.path, ": not found"));
  }
  if (info->status != FileStatus::kSuccess) {
    return absl::InternalError(absl::StrCat(arguments.path, ": the device answered with status ",
                                            static_cast<uint32_t>(info->status)));
  }
  std::string line = absl::StrCat(arguments.path, ": ");
  if (info->directory) {
    absl::StrAppend(&line, "directory\n");
  } else {
    absl::StrAppend(&line, "file, ", info->size_bytes, " bytes", info->rdma ? ", RDMA" : "", "\n");
  }
  return Output(arguments, std::as_bytes(std::span(line)));
}

absl::Status ReadOut(VmbfsClient& client, const Arguments& arguments) {
  absl::StatusOr<std::vector<std::byte>> data = client.ReadFile(arguments.path_utf16);
  if (!data.ok()) {
    return absl::Status(data.status().code(),
                        absl::StrCat(arguments.path, ": ", data.status().message()));
  }
  return Output(arguments, *data);
}

absl::Status UseChannel(hyperv::Guest& guest, hyperv::GuestChannel& channel,
                        const Arguments& arguments) {
  VmbfsClient client(channel);
  if (arguments.rdma) {
    absl::StatusOr<std::shared_ptr<const hyperv::GuestPages>> buffer =
        guest.AllocateBuffer(VmbfsClient::kRdmaBytesMax / hyperv::kPageBytes);
    if (!buffer.ok()) return buffer.status();
    client.UseRdma(*std::move(buffer));
  }
  absl::StatusOr<bool> supported = client.Negotiate();
  if (!supported.ok()) return supported.status();
  if (!*supported) return absl::FailedPreconditionError("the device refused vmbfs version 1.0");
  return arguments.read ? ReadOut(client, arguments) : PrintInfo(client, arguments);
}

absl::Status Run(const Arguments& arguments) {
  const auto timeout = std::chrono::milliseconds(
      static_cast<std::chrono::milliseconds::rep>(arguments.timeout_seconds * 1000));
  hyperv::GuestOptions options;
  options.socket_path = arguments.socket_path;
  options.profile = arguments.profile;
  options.link = arguments.link;
  options.signal = arguments.signal;
  options.timeout = timeout;
  options.deadline = std::chrono::steady_clock::now() + timeout;

  absl::StatusOr<std::unique_ptr<hyperv::Guest>> guest = hyperv::Guest::Start(options);
  if (!guest.ok()) return guest.status();
  if (absl::Status connected = (*guest)->Connect(); !connected.ok()) return connected;
  absl::StatusOr<hyperv::GuestOffer> offer =
      (*guest)->WaitForOffer(kVmbfsInterfaceId, arguments.instance_id);
  if (!offer.ok()) return offer.status();
  absl::StatusOr<std::unique_ptr<hyperv::GuestChannel>> channel = (*guest)->Open(*offer);
  if (!channel.ok()) return channel.status();

  absl::Status result = UseChannel(**guest, **channel, arguments);
  result.Update((*guest)->Close(*std::move(channel)));
  result.Update((*guest)->Unload());
  return result;
}

// Parses the command line into `arguments`; an exit code ends the program.
std::optional<ExitCode> Parse(int argc, char** argv, Arguments& arguments) {
  CLI::App app{"Asks for a file as a guest of the VM would, over the VM's link socket.",
               "vmbfs-guest"};
  app.footer("Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 unreachable or timed out.");
  app.set_version_flag("--version", absl::StrCat("vmbfs-guest ", kVersion));
  app.fallthrough();
  app.require_subcommand(1);
  app.add_option("--link", arguments.socket_path, "The VM's link socket")
      ->required()
      ->type_name("SOCKET");
  std::string profile = "firmware";
  app.add_option("--profile", profile, "The guest to behave like: firmware (the default), linux")
      ->check(CLI::IsMember({"firmware", "linux"}).description(""))
      ->type_name("firmware|linux");
  std::string vmm = "direct";
  app.add_option(
         "--vmm", vmm,
         "The VMM to behave like: direct (the default) and mediated let vmbfsd be the whole "
         "VMBus, which writes message slots itself or by the VMM; channel has a VMBus of "
         "its own")
      ->check(CLI::IsMember({"direct", "mediated", "channel"}).description(""))
      ->type_name("direct|mediated|channel");
  std::string signal = "event";
  app.add_option("--signal", signal,
                 "How to signal the device: event (the default), or monitor, which needs profile "
                 "linux and a VM made with --monitored")
      ->check(CLI::IsMember({"event", "monitor"}).description(""))
      ->type_name("event|monitor");
  std::string device = "imc";
  app.add_option("--device", device, "The device to open: imc (the default), boot")
      ->check(CLI::IsMember({"imc", "boot"}).description(""))
      ->type_name("imc|boot");
  app.add_option("--timeout", arguments.timeout_seconds,
                 "Time for the whole command, in seconds (default 30)")
      ->check(CLI::Range(0.001, kTimeoutSecondsMax).description(""))
      ->type_name("S");

  CLI::App* info = app.add_subcommand("info", "Prints the size and kind of PATH");
  info->add_option("PATH", arguments.path, "The path, sent as it is")->required()->type_name("");
  CLI::App* read = app.add_subcommand("read", "Reads the file PATH");
  read->add_option("PATH", arguments.path, "The path, sent as it is")->required()->type_name("");
  read->add_option("--output", arguments.output_file,
                   "Where to, whole or not at all (default: stdout)")
      ->type_name("FILE");
  read->add_flag("!--no-rdma", arguments.rdma,
                 "Read through the ring also where the device offers RDMA reads");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kDone : kUsage;
  }
  arguments.profile =
      profile == "linux" ? hyperv::GuestProfile::kLinux : hyperv::GuestProfile::kFirmware;
  arguments.link = *hyperv::ParseGuestLink(vmm);
  if (signal == "monitor") arguments.signal = hyperv::GuestSignal::kMonitor;
  arguments.instance_id = device == "boot" ? kBootInstanceId : kImcInstanceId;
  arguments.read = read->parsed();
  std::optional<std::u16string> path = Utf16FromUtf8(arguments.path);
  if (!path) {
    std::cerr << "vmbfs-guest: PATH is no valid UTF-8\n";
    return kUsage;
  }
  arguments.path_utf16 = *std::move(path);
  return std::nullopt;
}

int Main(int argc, char** argv) {
  // A reader of stdout that goes away is an error of write, not our end.
  std::signal(SIGPIPE, SIG_IGN);
  Arguments arguments;
  if (std::optional<ExitCode> end = Parse(argc, argv, arguments)) return *end;
  const absl::Status result = Run(arguments);
  if (!result.ok()) std::cerr << "vmbfs-guest: " << result.message() << "\n";
  return ExitCodeOf(result);
}

}  // namespace
}  // namespace vmbfs

int main(int argc, char** argv) { return vmbfs::Main(argc, argv); }
