#include "tests/real_guest/vmm/kvm_machine.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/real_guest/vmm/acpi_tables.h"

namespace vmbfs::test_vmm {
namespace {

constexpr uint32_t kFirstSintGsi = 24;  // behind the I/O APIC's pins; one a processor
constexpr uint32_t kVmbusSint = 2;
constexpr uint64_t kTssAddress = 0xfffbd000;          // KVM's own three pages, on Intel
constexpr uint64_t kIdentityMapAddress = 0xfffbc000;  // and one more

// Makes a thread leave KVM_RUN.
constexpr int kKickSignal = SIGUSR1;

template <typename Argument>
absl::StatusOr<int> Call(const hyperv::UniqueFd& fd, unsigned long request, Argument argument,
                         const char* name) {
  const int result = ioctl(fd.get(), request, argument);
  if (result < 0) return absl::ErrnoToStatus(errno, name);
  return result;
}

absl::StatusOr<hyperv::UniqueFd> OpenKvm() {
  hyperv::UniqueFd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm) return absl::ErrnoToStatus(errno, "/dev/kvm");
  return kvm;
}

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
  const absl::StatusOr<hyperv::UniqueFd> kvm = OpenKvm();
  if (!kvm.ok()) return kvm.status();
  return CheckExtensions(
      [&](int capability) { return ioctl(kvm->get(), KVM_CHECK_EXTENSION, capability); });
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

KvmMachine::KvmMachine(const hyperv::GuestRam& ram, ProcessorMail& mail,
                       SerialPort::Transmit transmit)
    : ram_(ram), mail_(mail), serial_(std::move(transmit), [this](bool raised) {
        kvm_irq_level line{};
        line.irq = SerialPort::kIrq;
        line.level = raised;
        ioctl(vm_.get(), KVM_IRQ_LINE, &line);
      }) {}

absl::StatusOr<std::unique_ptr<KvmMachine>> KvmMachine::Create(const hyperv::GuestRam& ram,
                                                               uint32_t processors,
                                                               ProcessorMail& mail,
                                                               SerialPort::Transmit transmit) {
  std::unique_ptr<KvmMachine> machine(new KvmMachine(ram, mail, std::move(transmit)));
  if (absl::Status set_up = machine->SetUp(processors); !set_up.ok()) return set_up;
  return machine;
}

KvmMachine::~KvmMachine() {
  stopping_ = true;
  for (const auto& processor : processors_) {
    if (!processor->thread.joinable()) continue;
    // The flag is for a thread that is not in KVM_RUN yet.
    std::atomic_ref(processor->run->immediate_exit).store(1);
    pthread_kill(processor->thread.native_handle(), kKickSignal);
    processor->thread.join();
  }
  for (const auto& processor : processors_) {
    if (processor->run != nullptr) munmap(processor->run, kvm_run_bytes_);
  }
}

absl::Status KvmMachine::SetUp(uint32_t processors) {
  struct sigaction kick{};
  kick.sa_handler = [](int) {};
  sigaction(kKickSignal, &kick, nullptr);

  if (absl::Status able = Check(); !able.ok()) return able;
  absl::StatusOr<hyperv::UniqueFd> kvm = OpenKvm();
  if (!kvm.ok()) return kvm.status();
  kvm_ = *std::move(kvm);
  const absl::StatusOr<int> run_bytes =
      Call(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
  if (!run_bytes.ok()) return run_bytes.status();
  kvm_run_bytes_ = static_cast<size_t>(*run_bytes);
  const absl::StatusOr<int> vm = Call(kvm_, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  if (!vm.ok()) return vm.status();
  vm_ = hyperv::UniqueFd(*vm);

  absl::Status result = Call(vm_, KVM_SET_TSS_ADDR, kTssAddress, "KVM_SET_TSS_ADDR").status();
  uint64_t identity_map = kIdentityMapAddress;
  result.Update(
      Call(vm_, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR").status());
  result.Update(Call(vm_, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP").status());
  result.Update(AddMemory());
  for (uint32_t vp = 0; result.ok() && vp < processors; ++vp) {
    result.Update(AddProcessor(vp, processors));
  }
  // After the processors: KVM looks for their SynICs now, for acknowledgements.
  if (result.ok()) result.Update(RouteInterrupts(processors));
  return result;
}

absl::Status KvmMachine::AddMemory() {
  kvm_userspace_memory_region region{};
  region.memory_size = ram_.bytes().size();
  region.userspace_addr = reinterpret_cast<uintptr_t>(ram_.bytes().data());
  return Call(vm_, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION").status();
}

absl::Status KvmMachine::RouteInterrupts(uint32_t processors) {
  auto routing =
      std::make_unique<WithEntries<kvm_irq_routing, kvm_irq_routing_entry, 1 + kProcessorsMax>>();
  kvm_irq_routing_entry& serial = routing->entries[0];
  serial.gsi = SerialPort::kIrq;
  serial.type = KVM_IRQ_ROUTING_IRQCHIP;
  serial.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
  serial.u.irqchip.pin = SerialPort::kIrq;
  for (uint32_t vp = 0; vp < processors; ++vp) {
    kvm_irq_routing_entry& sint = routing->entries[1 + vp];
    sint.gsi = kFirstSintGsi + vp;
    sint.type = KVM_IRQ_ROUTING_HV_SINT;
    sint.u.hv_sint.vcpu = vp;
    sint.u.hv_sint.sint = kVmbusSint;
  }
  routing->header.nr = 1 + processors;
  return Call(vm_, KVM_SET_GSI_ROUTING, routing.get(), "KVM_SET_GSI_ROUTING").status();
}

absl::Status KvmMachine::AddProcessor(uint32_t vp, uint32_t processors) {
  const absl::StatusOr<int> fd = Call(vm_, KVM_CREATE_VCPU, vp, "KVM_CREATE_VCPU");
  if (!fd.ok()) return fd.status();
  auto processor = std::make_unique<Processor>();
  processor->vp = vp;
  processor->fd = hyperv::UniqueFd(*fd);
  void* run = mmap(nullptr, kvm_run_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
  if (run == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of a processor");
  processor->run = static_cast<kvm_run*>(run);
  processors_.push_back(std::move(processor));
  const Processor& added = *processors_.back();

  // SYNIC2: KVM leaves the contents of the guest's SynIC pages alone.
  kvm_enable_cap synic{};
  synic.cap = KVM_CAP_HYPERV_SYNIC2;
  absl::Status result = Call(added.fd, KVM_ENABLE_CAP, &synic, "KVM_CAP_HYPERV_SYNIC2").status();
  result.Update(SetCpuid(added, processors));
  return result;
}

absl::Status KvmMachine::SetCpuid(const Processor& processor, uint32_t processors) {
  constexpr uint32_t kHypervisorLeaf = 0x40000000;
  constexpr uint32_t kHypervisorLeafMask = 0xffffff00;
  auto native = std::make_unique<CpuidList>();
  auto hyperv = std::make_unique<CpuidList>();
  native->header.nent = hyperv->header.nent = static_cast<uint32_t>(native->entries.size());
  absl::Status result =
      Call(kvm_, KVM_GET_SUPPORTED_CPUID, native.get(), "KVM_GET_SUPPORTED_CPUID").status();
  result.Update(
      Call(kvm_, KVM_GET_SUPPORTED_HV_CPUID, hyperv.get(), "KVM_GET_SUPPORTED_HV_CPUID").status());
  if (!result.ok()) return result;

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
  for (uint32_t index = 0; index < hyperv->header.nent; ++index) {
    if (count == cpuid->entries.size()) return absl::InternalError("too many CPUID leaves");
    kvm_cpuid_entry2 entry = hyperv->entries[index];
    if (entry.function == kHypervisorLeaf) {
      std::memcpy(&entry.ebx, "Micr", 4);
      std::memcpy(&entry.ecx, "osof", 4);
      std::memcpy(&entry.edx, "t Hv", 4);
    }
    cpuid->entries[count++] = entry;
  }
  return Call(processor.fd, KVM_SET_CPUID2, cpuid.get(), "KVM_SET_CPUID2").status();
}

absl::Status KvmMachine::RouteSint(uint32_t vp, int irq, int ack) {
  kvm_irqfd route{};
  route.fd = static_cast<uint32_t>(irq);
  route.resamplefd = static_cast<uint32_t>(ack);
  route.gsi = kFirstSintGsi + vp;
  route.flags = KVM_IRQFD_FLAG_RESAMPLE;
  return Call(vm_, KVM_IRQFD, &route, "KVM_IRQFD").status();
}

absl::Status KvmMachine::SetConnection(uint32_t connection, int event_fd) {
  kvm_hyperv_eventfd event{};
  event.conn_id = connection;
  event.fd = event_fd;
  return Call(vm_, KVM_HYPERV_EVENTFD, &event, "KVM_HYPERV_EVENTFD").status();
}

absl::Status KvmMachine::ClearConnection(uint32_t connection) {
  kvm_hyperv_eventfd event{};
  event.conn_id = connection;
  event.fd = -1;
  event.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
  return Call(vm_, KVM_HYPERV_EVENTFD, &event, "KVM_HYPERV_EVENTFD").status();
}

absl::Status KvmMachine::SetEntry(const Processor& processor, const BootEntry& entry) {
  constexpr uint64_t kProtectedPaged = 0x80000011;      // CR0: PE, ET, PG
  constexpr uint64_t kPhysicalAddressExtension = 0x20;  // CR4
  constexpr uint64_t kLongMode = 0x500;                 // EFER: LME, LMA
  kvm_sregs special{};
  absl::Status result = Call(processor.fd, KVM_GET_SREGS, &special, "KVM_GET_SREGS").status();
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
  result.Update(Call(processor.fd, KVM_SET_SREGS, &special, "KVM_SET_SREGS").status());
  result.Update(Call(processor.fd, KVM_SET_REGS, &registers, "KVM_SET_REGS").status());
  return result;
}

// The other processors wait in KVM_RUN until the guest starts them.
absl::Status KvmMachine::Start(const BootEntry& entry) {
  if (absl::Status set = SetEntry(*processors_.front(), entry); !set.ok()) return set;
  for (const auto& processor : processors_) {
    processor->thread = std::thread([this, &processor] { Run(*processor); });
  }
  return absl::OkStatus();
}

}  // namespace vmbfs::test_vmm
