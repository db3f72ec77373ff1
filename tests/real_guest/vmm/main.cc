// test-vmm: boots an unmodified Linux kernel in KVM as a guest of Hyper-V's, and
// lets vmbfsd serve its VMBus over the link. See tests/real_guest/README.md.
//
// Exit codes: 0 the guest powered off, 1 failed, 2 usage, 3 the connection to
// vmbfsd was lost. The serial console is stdin and stdout; words to stderr.

#include <fcntl.h>
#include <poll.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_link.h"
#include "hyperv/guest/guest_ram.h"
#include "tests/real_guest/vmm/acpi_tables.h"
#include "tests/real_guest/vmm/console.h"
#include "tests/real_guest/vmm/kvm_machine.h"
#include "tests/real_guest/vmm/linux_boot.h"
#include "tests/real_guest/vmm/processor_mail.h"
#include "tests/real_guest/vmm/vmbus_link.h"

namespace vmbfs::test_vmm {
namespace {

enum ExitCode { kPoweredOff = 0, kFailed = 1, kUsage = 2, kLinkLost = 3 };

constexpr std::chrono::minutes kServerPatience{2};
constexpr uint64_t kMebibyte = uint64_t{1} << 20;

struct Arguments {
  VmbusLink::Options link;  // without a path: no VMBus
  std::string kernel;
  std::string initrd;
  std::string command_line = "console=ttyS0";
  uint64_t memory_mib = 320;
  bool check = false;  // only say whether a guest can run here
};

void Say(const std::string& text) { std::cerr << "test-vmm: " << text << std::endl; }

absl::StatusOr<std::vector<std::byte>> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<std::byte> bytes(file ? static_cast<size_t>(file.tellg()) : 0);
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return bytes;
}

// A VM over all its resets.
class Vm {
 public:
  explicit Vm(const Arguments& arguments)
      : arguments_(arguments), mail_(!arguments.link.socket_path.empty()) {}

  ExitCode Run() {
    if (absl::Status able = KvmMachine::Check(); !able.ok()) return Fail(able);
    if (arguments_.check) return kPoweredOff;
    if (absl::Status prepared = Prepare(); !prepared.ok()) return Fail(prepared);
    Console console;
    for (;;) {
      if (absl::Status booted = Boot(); !booted.ok()) return Fail(booted);
      absl::Status served = Serve(console);
      if (link_) link_->Detach();
      machine_.reset();
      if (!served.ok()) return Fail(served);
      const auto [ending, reason] = *mail_.ending();
      Say(reason);
      if (ending != Ending::kReset) return ending == Ending::kPowerOff ? kPoweredOff : kFailed;
      if (absl::Status reset = Reset(); !reset.ok()) return Fail(reset);
    }
  }

 private:
  ExitCode Fail(const absl::Status& reason) {
    const bool lost = link_ != nullptr && absl::IsUnavailable(reason);
    Say(absl::StrCat(lost ? "the connection to vmbfsd was lost: " : "", reason.message()));
    return lost ? kLinkLost : kFailed;
  }

  absl::Status Prepare() {
    const absl::StatusOr<std::vector<std::byte>> kernel_file = ReadFile(arguments_.kernel);
    if (!kernel_file.ok()) return kernel_file.status();
    absl::StatusOr<LinuxKernel> kernel = ParseBzImage(*kernel_file);
    if (!kernel.ok()) return kernel.status();
    kernel_ = *std::move(kernel);
    absl::StatusOr<std::vector<std::byte>> initrd = ReadFile(arguments_.initrd);
    if (!initrd.ok()) return initrd.status();
    initrd_ = *std::move(initrd);
    auto ram = hyperv::GuestRam::Create(arguments_.memory_mib * kMebibyte);
    if (!ram.ok()) return ram.status();
    ram_ = *std::move(ram);
    if (arguments_.link.socket_path.empty()) return absl::OkStatus();
    auto link = VmbusLink::Connect(arguments_.link, *ram_, mail_,
                                   std::chrono::steady_clock::now() + kServerPatience);
    if (!link.ok()) return link.status();
    link_ = *std::move(link);
    return absl::OkStatus();
  }

  absl::Status Boot() {
    const absl::StatusOr<BootEntry> entry = PlaceLinux(
        ram_->bytes(), kernel_, initrd_, arguments_.command_line, arguments_.link.processors);
    if (!entry.ok()) return entry.status();
    auto machine = KvmMachine::Create(*ram_, arguments_.link.processors, mail_, &Console::Write);
    if (!machine.ok()) return machine.status();
    machine_ = *std::move(machine);
    if (link_) {
      if (absl::Status attached = link_->Attach(*machine_); !attached.ok()) return attached;
    }
    return machine_->Start(*entry);
  }

  // Until the machine ends, or something fails.
  absl::Status Serve(Console& console) {
    while (!mail_.ending()) {
      Wait(console);
      if (console.leaving()) return absl::CancelledError("left");
      if (link_) {
        if (absl::Status served = link_->Serve(); !served.ok()) return served;
      } else {
        mail_.Take();
      }
    }
    return absl::OkStatus();
  }

  void Wait(Console& console) {
    // A console that the guest does not read is looked at again after this time.
    constexpr int kPollAgain_ms = 200;
    const bool room = machine_->serial().HasRoom();
    std::vector<pollfd> fds = {
        {.fd = room ? console.input_fd() : -1, .events = POLLIN, .revents = 0},
        {.fd = console.signal_fd(), .events = POLLIN, .revents = 0},
        {.fd = mail_.fd(), .events = POLLIN, .revents = 0}};
    if (link_) {
      for (const int fd : link_->descriptors())
        fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    }
    if (poll(fds.data(), fds.size(), room ? -1 : kPollAgain_ms) <= 0) return;
    if (fds.front().revents != 0) machine_->serial().Input(console.Read());
  }

  // As after power-on: the server forgets the guest before its memory goes.
  absl::Status Reset() {
    if (link_) {
      if (absl::Status reset = link_->Reset(); !reset.ok()) return reset;
    } else {
      mail_.Clear();
    }
    if (fallocate(ram_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(ram_->bytes().size())) != 0) {
      return absl::ErrnoToStatus(errno, "emptying guest RAM");
    }
    return absl::OkStatus();
  }

  const Arguments arguments_;
  ProcessorMail mail_;
  LinuxKernel kernel_;
  std::vector<std::byte> initrd_;
  std::unique_ptr<hyperv::GuestRam> ram_;
  std::unique_ptr<VmbusLink> link_;
  std::unique_ptr<KvmMachine> machine_;
};

// Parses the command line into `arguments`; an exit code ends the program.
std::optional<ExitCode> Parse(int argc, char** argv, Arguments& arguments) {
  CLI::App app{"Boots a Linux kernel in KVM, with vmbfsd as its VMBus.", "test-vmm"};
  app.footer("Exit codes: 0 powered off, 1 failed, 2 usage, 3 connection to vmbfsd lost.");
  // So that a script can add to a command line that it has.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--check", arguments.check, "Only says whether a guest can run here");
  app.add_option("--link", arguments.link.socket_path, "The VM's link socket (default: no VMBus)")
      ->type_name("SOCKET");
  app.add_option("--kernel", arguments.kernel, "The kernel")->type_name("BZIMAGE");
  app.add_option("--initrd", arguments.initrd, "Its initial file system")->type_name("FILE");
  app.add_option("--cmdline", arguments.command_line, "Its options (default: console=ttyS0)")
      ->type_name("TEXT");
  app.add_option("--memory", arguments.memory_mib, "Memory in MiB (default 320)")
      ->check(CLI::Range(kMemoryBytesMin / kMebibyte, kMemoryBytesMax / kMebibyte).description(""))
      ->type_name("MIB");
  app.add_option("--cpus", arguments.link.processors, "Virtual processors (default 1)")
      ->check(CLI::Range(1u, kProcessorsMax).description(""))
      ->type_name("N");
  app.add_option("--name", arguments.link.label, "The VM's name for vmbfsd's logs")
      ->type_name("TEXT");
  std::string level = "synic";
  app.add_option("--level", level,
                 "synic (the default): vmbfsd is the whole VMBus; channel: it serves channels on "
                 "a VMBus of this VMM's")
      ->check(CLI::IsMember({"synic", "channel"}).description(""))
      ->type_name("synic|channel");
  std::string delivery = "direct";
  app.add_option("--delivery", delivery,
                 "At the SynIC level, who writes to the guest's SynIC pages: vmbfsd (direct, the "
                 "default), or this VMM for it (mediated)")
      ->check(CLI::IsMember({"direct", "mediated"}).description(""))
      ->type_name("direct|mediated");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kPoweredOff : kUsage;
  }
  if (!arguments.check && (arguments.kernel.empty() || arguments.initrd.empty())) {
    Say("--kernel and --initrd are needed");
    return kUsage;
  }
  arguments.link.form = *hyperv::ParseGuestLink(level == "channel" ? level : delivery);
  return std::nullopt;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (std::optional<ExitCode> end = Parse(argc, argv, arguments)) return *end;
  return Vm(arguments).Run();
}

}  // namespace
}  // namespace vmbfs::test_vmm

int main(int argc, char** argv) { return vmbfs::test_vmm::Main(argc, argv); }
