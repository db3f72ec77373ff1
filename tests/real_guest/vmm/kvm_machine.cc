#include "tests/real_guest/vmm/kvm_machine.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/guest/vmm_link.h"
#include "hyperv/link/link_format.h"
#include "tests/real_guest/pc/acpi_tables.h"

namespace vmbfs::test_vmm {
namespace {

constexpr uint32_t kFirstSintGsi = 24;                // behind the I/O APIC's pins; one a processor
constexpr uint64_t kTssAddress = 0xfffbd000;          // KVM's own three pages, on Intel
constexpr uint64_t kIdentityMapAddress = 0xfffbc000;  // and one more

// Makes a thread leave KVM_RUN.
constexpr int kKickSignal = SIGUSR1;

[[noreturn]] void Fail(const char* name) {
  std::cerr << "test-vmm: " << name << ": " << std::strerror(errno) << std::endl;
  std::exit(EXIT_FAILURE);
}

// A call that a machine cannot be without.
template <typename Argument>
int Call(const hyperv::UniqueFd& fd, unsigned long request, Argument argument, const char* name) {
  const int result = ioctl(fd.get(), request, argument);
  if (result < 0) Fail(name);
  return result;
}

hyperv::UniqueFd OpenKvm() { return hyperv::UniqueFd(open("/dev/kvm", O_RDWR | O_CLOEXEC)); }

// A kernel structure with its list behind it.
template <typename Header, typename Entry, size_t kEntries>
struct WithEntries {
  Header header{};
  std::array<Entry, kEntries> entries{};
};
using CpuidList = WithEntries<kvm_cpuid2, kvm_cpuid_entry2, 256>;

kvm_segment FlatSegment(uint16_t selector, uint8_t type, bool code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.db = !code;
  segment.s = 1;
  segment.l = code;
  segment.g = 1;
  return segment;
}

}  // namespace

absl::Status KvmMachine::Check() {
  const hyperv::UniqueFd kvm = OpenKvm();
  if (!kvm) return absl::ErrnoToStatus(errno, "/dev/kvm");
  return CheckExtensions(
      [&](int capability) { return ioctl(kvm.get(), KVM_CHECK_EXTENSION, capability); });
}

absl::Status KvmMachine::CheckExtensions(const std::function<int(int capability)>& extension) {
  constexpr std::array<std::pair<int, const char*>, 3> kNeeded = {{
      {KVM_CAP_HYPERV_SYNIC2, "HYPERV_SYNIC2"},
      {KVM_CAP_HYPERV_EVENTFD, "HYPERV_EVENTFD"},
      {KVM_CAP_SYS_HYPERV_CPUID, "SYS_HYPERV_CPUID"},
  }};
  for (const auto& [capability, name] : kNeeded) {
    if (extension(capability) > 0) continue;
    return absl::UnimplementedError(absl::StrCat(
        "/dev/kvm has no ", name, "; a kernel of 5.11 or later with CONFIG_KVM_HYPERV is needed"));
  }
  return absl::OkStatus();
}

KvmMachine::KvmMachine(const hyperv::GuestRam& ram, uint32_t processors, Vmbus& vmbus,
                       SerialPort::Transmit transmit)
    : ram_(ram),
      vmbus_(vmbus),
      serial_(std::move(transmit),
              [this](bool raised) {
                kvm_irq_level line{};
                line.irq = SerialPort::kIrq;
                line.level = raised;
                ioctl(vm_.get(), KVM_IRQ_LINE, &line);
              }),
      ended_(hyperv::NewEventFd()),
      kvm_(OpenKvm()) {
  struct sigaction kick{};
  kick.sa_handler = [](int) {};
  sigaction(kKickSignal, &kick, nullptr);

  kvm_run_bytes_ =
      static_cast<size_t>(Call(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
  vm_ = hyperv::UniqueFd(Call(kvm_, KVM_CREATE_VM, 0, "KVM_CREATE_VM"));
  Call(vm_, KVM_SET_TSS_ADDR, kTssAddress, "KVM_SET_TSS_ADDR");
  uint64_t identity_map = kIdentityMapAddress;
  Call(vm_, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
  Call(vm_, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
  AddMemory();
  for (uint32_t vp = 0; vp < processors; ++vp) AddProcessor(vp, processors);
  // After the processors: KVM looks for their SynICs now, for acknowledgements.
  RouteInterrupts();
}

KvmMachine::~KvmMachine() {
  vmbus_.SetRoute({}).IgnoreError();
  stopping_ = true;
  for (const auto& processor : processors_) {
    if (processor->thread.joinable()) {
      // The flag is for a thread that is not in KVM_RUN yet.
      std::atomic_ref(processor->run->immediate_exit).store(1);
      pthread_kill(processor->thread.native_handle(), kKickSignal);
      processor->thread.join();
    }
    munmap(processor->run, kvm_run_bytes_);
  }
}

void KvmMachine::AddMemory() {
  kvm_userspace_memory_region region{};
  region.memory_size = ram_.bytes().size();
  region.userspace_addr = reinterpret_cast<uintptr_t>(ram_.bytes().data());
  Call(vm_, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

void KvmMachine::AddProcessor(uint32_t vp, uint32_t processors) {
  Processor& added = *processors_.emplace_back(std::make_unique<Processor>());
  added.vp = vp;
  added.fd = hyperv::UniqueFd(Call(vm_, KVM_CREATE_VCPU, vp, "KVM_CREATE_VCPU"));
  void* const run =
      mmap(nullptr, kvm_run_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, added.fd.get(), 0);
  if (run == MAP_FAILED) Fail("mmap of a processor");
  added.run = static_cast<kvm_run*>(run);
  // SYNIC2: KVM leaves the contents of the guest's SynIC pages alone.
  kvm_enable_cap synic{};
  synic.cap = KVM_CAP_HYPERV_SYNIC2;
  Call(added.fd, KVM_ENABLE_CAP, &synic, "KVM_CAP_HYPERV_SYNIC2");
  SetCpuid(added, processors);
}

void KvmMachine::RouteInterrupts() {
  const auto processors = static_cast<uint32_t>(processors_.size());
  WithEntries<kvm_irq_routing, kvm_irq_routing_entry, 1 + kProcessorsMax> routing;
  kvm_irq_routing_entry& serial = routing.entries[0];
  serial.gsi = SerialPort::kIrq;
  serial.type = KVM_IRQ_ROUTING_IRQCHIP;
  serial.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
  serial.u.irqchip.pin = SerialPort::kIrq;
  for (uint32_t vp = 0; vp < processors; ++vp) {
    kvm_irq_routing_entry& sint = routing.entries[1 + vp];
    sint.gsi = kFirstSintGsi + vp;
    sint.type = KVM_IRQ_ROUTING_HV_SINT;
    sint.u.hv_sint.vcpu = vp;
    sint.u.hv_sint.sint = hyperv::kSynicVmbusSint;
  }
  routing.header.nr = 1 + processors;
  Call(vm_, KVM_SET_GSI_ROUTING, &routing, "KVM_SET_GSI_ROUTING");
  for (uint32_t vp = 0; vp < processors; ++vp) {
    kvm_irqfd route{};
    route.fd = static_cast<uint32_t>(vmbus_.interrupt_fd(vp));
    route.resamplefd = static_cast<uint32_t>(vmbus_.ack_fd(vp));
    route.gsi = kFirstSintGsi + vp;
    route.flags = KVM_IRQFD_FLAG_RESAMPLE;
    Call(vm_, KVM_IRQFD, &route, "KVM_IRQFD");
  }
  const auto route = [this](uint32_t connection, int fd) {
    return RouteConnection(connection, fd);
  };
  vmbus_.SetRoute(route).IgnoreError();  // what has no way in the kernel comes as a hypercall
}

absl::Status KvmMachine::RouteConnection(uint32_t connection, int event_fd) {
  kvm_hyperv_eventfd event{};
  event.conn_id = connection;
  event.fd = event_fd;
  event.flags = event_fd < 0 ? KVM_HYPERV_EVENTFD_DEASSIGN : 0;
  if (ioctl(vm_.get(), KVM_HYPERV_EVENTFD, &event) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "KVM_HYPERV_EVENTFD");
}

void KvmMachine::SetCpuid(const Processor& processor, uint32_t processors) {
  constexpr uint32_t kHypervisorLeaf = 0x40000000;
  constexpr uint32_t kHypervisorLeafMask = 0xffffff00;
  auto native = std::make_unique<CpuidList>();
  auto hyperv = std::make_unique<CpuidList>();
  native->header.nent = hyperv->header.nent = static_cast<uint32_t>(native->entries.size());
  Call(kvm_, KVM_GET_SUPPORTED_CPUID, native.get(), "KVM_GET_SUPPORTED_CPUID");
  Call(kvm_, KVM_GET_SUPPORTED_HV_CPUID, hyperv.get(), "KVM_GET_SUPPORTED_HV_CPUID");

  auto cpuid = std::make_unique<CpuidList>();
  uint32_t& count = cpuid->header.nent;
  for (uint32_t index = 0; index < native->header.nent; ++index) {
    kvm_cpuid_entry2 entry = native->entries[index];
    // KVM's own leaves are where Hyper-V's must be.
    if ((entry.function & kHypervisorLeafMask) == kHypervisorLeaf) continue;
    if (entry.function == 1) {
      entry.ebx = (entry.ebx & 0x0000ffff) | processors << 16 | processor.vp << 24;
      entry.ecx |= uint32_t{1} << 31;  // there is a hypervisor
    }
    if (entry.function == 0xb || entry.function == 0x1f) entry.edx = processor.vp;
    if (entry.function == 0x8000001e) entry.eax = processor.vp;
    cpuid->entries[count++] = entry;
  }
  for (uint32_t index = 0; index < hyperv->header.nent && count < cpuid->entries.size(); ++index) {
    kvm_cpuid_entry2 entry = hyperv->entries[index];
    if (entry.function == kHypervisorLeaf) {
      std::memcpy(&entry.ebx, "Micr", 4);
      std::memcpy(&entry.ecx, "osof", 4);
      std::memcpy(&entry.edx, "t Hv", 4);
    }
    cpuid->entries[count++] = entry;
  }
  Call(processor.fd, KVM_SET_CPUID2, cpuid.get(), "KVM_SET_CPUID2");
}

void KvmMachine::SetEntry(const Processor& processor, const BootEntry& entry) {
  constexpr uint64_t kProtectedPaged = 0x80000011;      // CR0: PE, ET, PG
  constexpr uint64_t kPhysicalAddressExtension = 0x20;  // CR4
  constexpr uint64_t kLongMode = 0x500;                 // EFER: LME, LMA
  kvm_sregs special{};
  Call(processor.fd, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
  special.cs = FlatSegment(kCodeSelector, 0xb, true);
  special.ds = special.es = special.fs = special.gs = special.ss =
      FlatSegment(kDataSelector, 0x3, false);
  special.gdt.base = entry.descriptor_table;
  special.gdt.limit = kDescriptorTableLimit;
  special.cr0 = kProtectedPaged;
  special.cr3 = entry.page_table;
  special.cr4 = kPhysicalAddressExtension;
  special.efer = kLongMode;
  kvm_regs registers{};
  registers.rip = entry.instruction;
  registers.rsi = entry.boot_parameters;
  registers.rflags = 2;  // the bit that is always set
  Call(processor.fd, KVM_SET_SREGS, &special, "KVM_SET_SREGS");
  Call(processor.fd, KVM_SET_REGS, &registers, "KVM_SET_REGS");
}

// The other processors wait in KVM_RUN until the guest starts them.
void KvmMachine::Start(const BootEntry& entry) {
  SetEntry(*processors_.front(), entry);
  for (const auto& processor : processors_) {
    processor->thread = std::thread([this, &processor] { Run(*processor); });
  }
}

std::optional<std::pair<Ending, std::string>> KvmMachine::ending() const {
  const std::lock_guard lock(mutex_);
  return ending_;
}

void KvmMachine::End(Ending ending, const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!ending_) ending_.emplace(ending, reason);
  }
  hyperv::RingEventFd(ended_.get());
}

}  // namespace vmbfs::test_vmm
