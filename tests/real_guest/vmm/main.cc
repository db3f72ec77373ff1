// test-vmm: boots an unmodified Linux kernel in KVM as a guest of Hyper-V's, and
// lets vmbfsd serve its VMBus over the link. See tests/real_guest/README.md.
//
// Exit codes: 0 the guest powered off, 1 failed, 2 usage, 3 the connection to
// vmbfsd was lost. The serial console is stdin and stdout; words to stderr.

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <iostream>
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
#include "tests/real_guest/pc/acpi_tables.h"
#include "tests/real_guest/pc/linux_boot.h"
#include "tests/real_guest/vmm/kvm_machine.h"
#include "tests/real_guest/vmm/vmbus.h"

namespace vmbfs::test_vmm {
namespace {

enum ExitCode { kPoweredOff = 0, kFailed = 1, kUsage = 2, kLinkLost = 3 };

constexpr uint64_t kMebibyte = uint64_t{1} << 20;

struct Arguments {
  Vmbus::Options vmbus;
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
  explicit Vm(const Arguments& arguments) : arguments_(arguments), vmbus_(arguments.vmbus) {}

  ExitCode Run() {
    if (absl::Status prepared = Prepare(); !prepared.ok()) {
      Say(std::string(prepared.message()));
      return kFailed;
    }
    for (;;) {
      const absl::StatusOr<BootEntry> entry = PlaceLinux(
          ram_->bytes(), kernel_, initrd_, arguments_.command_line, arguments_.vmbus.processors);
      if (!entry.ok()) return Fail(entry.status());
      machine_.emplace(*ram_, arguments_.vmbus.processors, vmbus_, &Write);
      machine_->Start(*entry);
      absl::Status served;
      while (served.ok() && !machine_->ending()) {
        Wait();
        served = vmbus_.Serve();
      }
      const auto ending = machine_->ending();
      machine_.reset();
      if (!served.ok()) return Fail(served);
      Say(ending->second);
      if (ending->first == Ending::kPowerOff) return kPoweredOff;
      if (ending->first == Ending::kFailure) return kFailed;
      if (absl::Status reset = Reset(); !reset.ok()) return Fail(reset);
    }
  }

 private:
  static void Write(char byte) {
    [[maybe_unused]] const ssize_t written = write(STDOUT_FILENO, &byte, 1);
  }

  ExitCode Fail(const absl::Status& reason) {
    const bool lost = absl::IsUnavailable(reason);
    Say(absl::StrCat(lost ? "the connection to vmbfsd was lost: " : "", reason.message()));
    return lost ? kLinkLost : kFailed;
  }

  absl::Status Prepare() {
    if (absl::Status able = KvmMachine::Check(); !able.ok()) return able;
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
    return vmbus_.Connect(*ram_);
  }

  // Sleeps until there is something to look after, and takes what was typed.
  void Wait() {
    // A console that the guest does not read is looked at again after this time.
    constexpr int kPollAgain_ms = 200;
    const bool room = machine_->serial().HasRoom();
    std::vector<pollfd> fds = {{.fd = room ? input_fd_ : -1, .events = POLLIN, .revents = 0},
                               {.fd = machine_->ended_fd(), .events = POLLIN, .revents = 0}};
    for (const int fd : vmbus_.descriptors()) {
      fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    }
    if (poll(fds.data(), fds.size(), room ? -1 : kPollAgain_ms) <= 0) return;
    if (fds.front().revents == 0) return;
    std::array<char, 256> typed;
    const ssize_t count = read(input_fd_, typed.data(), typed.size());
    if (count <= 0) input_fd_ = -1;
    machine_->serial().Input({typed.data(), static_cast<size_t>(std::max<ssize_t>(count, 0))});
  }

  // As after power-on: the server forgets the guest before its memory goes.
  absl::Status Reset() {
    if (absl::Status reset = vmbus_.Reset(); !reset.ok()) return reset;
    if (fallocate(ram_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  static_cast<off_t>(ram_->bytes().size())) != 0) {
      return absl::ErrnoToStatus(errno, "emptying guest RAM");
    }
    return absl::OkStatus();
  }

  const Arguments arguments_;
  LinuxKernel kernel_;
  std::vector<std::byte> initrd_;
  int input_fd_ = STDIN_FILENO;  // -1: nothing more can come
  std::unique_ptr<hyperv::GuestRam> ram_;
  Vmbus vmbus_;
  std::optional<KvmMachine> machine_;
};

// Parses the command line into `arguments`; an exit code ends the program.
std::optional<ExitCode> Parse(int argc, char** argv, Arguments& arguments) {
  std::string form = "direct";
  CLI::App app{"Boots a Linux kernel in KVM, with vmbfsd as its VMBus.", "test-vmm"};
  app.footer("Exit codes: 0 powered off, 1 failed, 2 usage, 3 connection to vmbfsd lost.");
  // So that a script can add to a command line that it has.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--check", arguments.check, "Only says whether a guest can run here");
  app.add_option("--link", arguments.vmbus.socket_path, "The VM's link socket")
      ->type_name("SOCKET");
  app.add_option("--kernel", arguments.kernel, "The kernel")->type_name("BZIMAGE");
  app.add_option("--initrd", arguments.initrd, "Its initial file system")->type_name("FILE");
  app.add_option("--cmdline", arguments.command_line, "Its options (default: console=ttyS0)")
      ->type_name("TEXT");
  app.add_option("--memory", arguments.memory_mib, "Memory in MiB (default 320)")
      ->check(CLI::Range(kMemoryBytesMin / kMebibyte, kMemoryBytesMax / kMebibyte).description(""))
      ->type_name("MIB");
  app.add_option("--cpus", arguments.vmbus.processors, "Virtual processors (default 1)")
      ->check(CLI::Range(1u, kProcessorsMax).description(""))
      ->type_name("N");
  app.add_option("--name", arguments.vmbus.label, "The VM's name for vmbfsd's logs")
      ->type_name("TEXT");
  app.add_option(
         "--form", form,
         "What vmbfsd is: the guest's whole VMBus, which writes to its SynIC pages (direct, "
         "the default) or lets this VMM do that (mediated), or channels on a VMBus of this "
         "VMM's (channel)")
      ->check(CLI::IsMember({"direct", "mediated", "channel"}).description(""))
      ->type_name("FORM");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kPoweredOff : kUsage;
  }
  if (!arguments.check && (arguments.vmbus.socket_path.empty() || arguments.kernel.empty() ||
                           arguments.initrd.empty())) {
    Say("--link, --kernel and --initrd are needed");
    return kUsage;
  }
  arguments.vmbus.form = *hyperv::ParseGuestLink(form);
  return std::nullopt;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (std::optional<ExitCode> end = Parse(argc, argv, arguments)) return *end;
  if (!arguments.check) return Vm(arguments).Run();
  const absl::Status able = KvmMachine::Check();
  if (!able.ok()) Say(std::string(able.message()));
  return able.ok() ? kPoweredOff : kFailed;
}

}  // namespace
}  // namespace vmbfs::test_vmm

int main(int argc, char** argv) { return vmbfs::test_vmm::Main(argc, argv); }
