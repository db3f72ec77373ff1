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
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/guest/guest_ram.h"
#include "hyperv/guest/vmm_synic.h"
#include "tests/real_guest/pc/linux_boot.h"
#include "tests/real_guest/pc/serial_port.h"
#include "tests/real_guest/vmm/kvm_api.h"
#include "tests/real_guest/vmm/vmbus.h"

namespace vmbfs::test_vmm {

enum class Ending { kPowerOff, kReset, kFailure };

// A thread runs each processor from Start to the destructor.
//
// Thread safety: the main thread creates, starts and destroys; processors' threads share
// the serial port and VMBus, which have locks of their own.
// Ownership: refers to `ram` and `vmbus`, which must outlive it.
// Errors: a machine that cannot be made ends the program, which says why.
class KvmMachine {
 public:
  // Whether machines can run here, and if not, what is missing.
  static absl::Status Check();
  // The same of a KVM whose answers to KVM_CHECK_EXTENSION are `extension`'s.
  static absl::Status CheckExtensions(const std::function<int(int capability)>& extension);

  KvmMachine(const hyperv::GuestRam& ram, uint32_t processors, Vmbus& vmbus,
             SerialPort::Transmit transmit);
  ~KvmMachine();  // stops the processors
  KvmMachine(const KvmMachine&) = delete;
  KvmMachine& operator=(const KvmMachine&) = delete;

  SerialPort& serial() { return serial_; }
  void Start(const BootEntry& entry);

  // How it ended, and why; readable then.
  std::optional<std::pair<Ending, std::string>> ending() const;
  int ended_fd() const { return ended_.get(); }

 private:
  // One processor; its thread's, after Start.
  struct Processor {
    uint32_t vp = 0;
    hyperv::UniqueFd fd;
    kvm_run* run = nullptr;  // shared with the kernel, kvm_run_bytes_ long
    hyperv::SynicRegisters synic;
    std::thread thread;
  };

  void AddMemory();
  void AddProcessor(uint32_t vp, uint32_t processors);
  void SetCpuid(const Processor& processor, uint32_t processors);
  void SetEntry(const Processor& processor, const BootEntry& entry);
  void RouteInterrupts();
  // HvSignalEvent writes the eventfd, in the kernel; -1: no more.
  absl::Status RouteConnection(uint32_t connection, int event_fd);

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
  void UpdateSynic(Processor& processor, hyperv::SynicRegisters registers);
  void End(Ending ending, const std::string& reason);  // the first counts

  const hyperv::GuestRam& ram_;
  Vmbus& vmbus_;
  SerialPort serial_;
  const hyperv::UniqueFd ended_;
  hyperv::UniqueFd kvm_;
  hyperv::UniqueFd vm_;
  size_t kvm_run_bytes_ = 0;
  std::vector<std::unique_ptr<Processor>> processors_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint16_t> events_enabled_ = 0;  // ACPI's; none ever comes
  mutable std::mutex mutex_;                  // guards the next
  std::optional<std::pair<Ending, std::string>> ending_;
};

}  // namespace vmbfs::test_vmm
