// One run of a virtual machine on /dev/kvm, from power-on to power-off or reset:
// memory, interrupt controllers, processors that look like Hyper-V's, ports.
//
// Trust: all that comes out of the guest is the guest's; addresses are checked
// against memory and copied once.
// Source: Linux, Documentation/virt/kvm/api.rst; shared/specs/vmbus.md section 1.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_ram.h"
#include "tests/real_guest/vmm/kvm_api.h"
#include "tests/real_guest/vmm/linux_boot.h"
#include "tests/real_guest/vmm/processor_mail.h"
#include "tests/real_guest/vmm/serial_port.h"

namespace vmbfs::test_vmm {

// A thread runs each processor from Start to the destructor.
//
// Thread safety: the main thread creates, starts, routes and destroys;
// processors' threads share `serial` and `mail`, which have locks of their own,
// and look at what Start left unchanged.
// Ownership: refers to `ram` and `mail`, which must outlive it.
// Errors: the system's reason, with the name of the KVM call.
class KvmMachine {
 public:
  // Whether machines can run here, and if not, what is missing.
  static absl::Status Check();
  // The same of a KVM whose answers to KVM_CHECK_EXTENSION are `extension`'s.
  static absl::Status CheckExtensions(const std::function<int(int capability)>& extension);

  static absl::StatusOr<std::unique_ptr<KvmMachine>> Create(const hyperv::GuestRam& ram,
                                                            uint32_t processors,
                                                            ProcessorMail& mail,
                                                            SerialPort::Transmit transmit);
  ~KvmMachine();  // stops the processors
  KvmMachine(const KvmMachine&) = delete;
  KvmMachine& operator=(const KvmMachine&) = delete;

  // How VMBus reaches the guest: a write to `irq` raises SINT 2 of processor
  // `vp`, and `ack` becomes readable when the guest is done with it.
  absl::Status RouteSint(uint32_t vp, int irq, int ack);
  // And how the guest reaches it: HvSignalEvent writes `event_fd`, in the kernel.
  absl::Status SetConnection(uint32_t connection, int event_fd);
  absl::Status ClearConnection(uint32_t connection);

  SerialPort& serial() { return serial_; }
  absl::Status Start(const BootEntry& entry);

 private:
  // One processor; its thread's, after Start.
  struct Processor {
    uint32_t vp = 0;
    hyperv::UniqueFd fd;
    kvm_run* run = nullptr;  // shared with the kernel, kvm_run_bytes_ long
    SynicState synic;
    std::thread thread;
  };

  KvmMachine(const hyperv::GuestRam& ram, ProcessorMail& mail, SerialPort::Transmit transmit);
  absl::Status SetUp(uint32_t processors);
  absl::Status AddMemory();
  absl::Status RouteInterrupts(uint32_t processors);
  absl::Status AddProcessor(uint32_t vp, uint32_t processors);
  absl::Status SetCpuid(const Processor& processor, uint32_t processors);
  absl::Status SetEntry(const Processor& processor, const BootEntry& entry);

  // A processor's thread.
  void Run(Processor& processor);
  bool HandleExit(Processor& processor);  // false: it cannot go on
  void HandlePort(kvm_run& run);
  uint8_t ReadPort(uint16_t port);
  void WritePort(uint16_t port, uint32_t value);
  void HandleHyperv(Processor& processor);
  uint16_t HandleHypercall(Processor& processor, uint64_t input, uint64_t parameter);
  uint16_t HandlePostMessage(Processor& processor, uint64_t input_gpa);
  bool CopyFromGuest(uint64_t gpa, void* out, size_t bytes) const;
  void ReadSint2(Processor& processor);

  const hyperv::GuestRam& ram_;
  ProcessorMail& mail_;
  hyperv::UniqueFd kvm_;
  hyperv::UniqueFd vm_;
  size_t kvm_run_bytes_ = 0;
  SerialPort serial_;
  std::vector<std::unique_ptr<Processor>> processors_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint16_t> events_enabled_ = 0;  // ACPI's; none ever comes
};

}  // namespace vmbfs::test_vmm
