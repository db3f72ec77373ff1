// The part of KvmMachine that processors' threads run: from KVM_RUN to what the
// guest wanted.
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/guest/guest_vmm.h"
#include "hyperv/link/link_format.h"
#include "tests/real_guest/pc/acpi_tables.h"
#include "tests/real_guest/vmm/kvm_machine.h"

namespace vmbfs::test_vmm {
namespace {

// shared/specs/vmbus.md 1.3 and 1.4.
constexpr uint32_t kSint2Register = 0x40000092;
constexpr uint64_t kCallCodeMask = 0xffff;
constexpr uint64_t kFastCall = uint64_t{1} << 16;
constexpr uint64_t kPostMessageCall = 0x5c;
constexpr uint64_t kSignalEventCall = 0x5d;
constexpr uint16_t kUnknownCall = 2;

constexpr uint16_t kClockDataPort = 0x71;

}  // namespace

void KvmMachine::Run(Processor& processor) {
  while (!stopping_) {
    if (ioctl(processor.fd.get(), KVM_RUN, 0) == 0) {
      if (!HandleExit(processor)) return;
    } else if (errno != EINTR && errno != EAGAIN) {
      return End(Ending::kFailure, absl::StrCat("KVM_RUN: ", std::strerror(errno)));
    }
  }
}

bool KvmMachine::HandleExit(Processor& processor) {
  kvm_run& run = *processor.run;
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      HandlePort(run);
      return true;
    case KVM_EXIT_MMIO:
      // Nothing is there: reads give ones.
      if (run.mmio.is_write == 0) std::memset(run.mmio.data, 0xff, sizeof(run.mmio.data));
      return true;
    case KVM_EXIT_HYPERV:
      HandleHyperv(processor);
      return true;
    case KVM_EXIT_SYSTEM_EVENT:  // the guest reports its panic, and goes on by itself
    case KVM_EXIT_INTR:
      return true;
    case KVM_EXIT_SHUTDOWN:
      End(Ending::kReset, "triple fault");
      return false;
    default:
      End(Ending::kFailure, absl::StrCat("processor ", processor.vp, " left the guest for reason ",
                                         run.exit_reason, ", ", run.internal.suberror));
      return false;
  }
}

void KvmMachine::HandlePort(kvm_run& run) {
  uint8_t* data = reinterpret_cast<uint8_t*>(&run) + run.io.data_offset;
  for (uint32_t index = 0; index < run.io.count; ++index, data += run.io.size) {
    if (run.io.direction == KVM_EXIT_IO_IN) {
      for (uint8_t byte = 0; byte < run.io.size; ++byte) {
        data[byte] = ReadPort(static_cast<uint16_t>(run.io.port + byte));
      }
    } else {
      uint32_t value = 0;
      std::memcpy(&value, data, run.io.size);
      WritePort(run.io.port, value);
    }
  }
}

uint8_t KvmMachine::ReadPort(uint16_t port) {
  if (port >= SerialPort::kBasePort && port < SerialPort::kBasePort + SerialPort::kPortCount) {
    return serial_.Read(static_cast<uint16_t>(port - SerialPort::kBasePort));
  }
  if (port == kPowerControlPort) return kAcpiMode;
  if (port == kPowerControlPort + 1 || port == kResetPort) return 0;
  if (port == kPowerEventPort || port == kPowerEventPort + 1) return 0;  // no event, ever
  if (port == kPowerEventPort + 2) return static_cast<uint8_t>(events_enabled_);
  if (port == kPowerEventPort + 3) return static_cast<uint8_t>(events_enabled_ >> 8);
  // A clock that never stands at "being updated", for which a kernel would wait: there is none,
  // but kernels ask before they look into the tables.
  if (port == kClockDataPort) return 0;
  return 0xff;
}

void KvmMachine::WritePort(uint16_t port, uint32_t value) {
  if (port >= SerialPort::kBasePort && port < SerialPort::kBasePort + SerialPort::kPortCount) {
    return serial_.Write(static_cast<uint16_t>(port - SerialPort::kBasePort),
                         static_cast<uint8_t>(value));
  }
  if (port == kPowerEventPort + 2) events_enabled_ = static_cast<uint16_t>(value);
  if (port == kResetPort && value == kResetValue) return End(Ending::kReset, "reset");
  if (port == kPowerControlPort && (value & kSleepEnable) != 0 &&
      (value >> kSleepTypeShift & 7) == kSleepTypeOff) {
    End(Ending::kPowerOff, "power-off");
  }
}

void KvmMachine::HandleHyperv(Processor& processor) {
  kvm_hyperv_exit& exit = processor.run->hyperv;
  if (exit.type == KVM_EXIT_HYPERV_SYNIC) {
    UpdateSynic(processor, {.scontrol = exit.u.synic.control,
                            .siefp = exit.u.synic.evt_page,
                            .simp = exit.u.synic.msg_page});
  } else if (exit.type == KVM_EXIT_HYPERV_HCALL) {
    exit.u.hcall.result = HandleHypercall(processor, exit.u.hcall.input, exit.u.hcall.params[0]);
  }
}

uint16_t KvmMachine::HandleHypercall(Processor& processor, uint64_t input, uint64_t parameter) {
  const bool fast = (input & kFastCall) != 0;
  switch (input & kCallCodeMask) {
    case kPostMessageCall:
      if (fast) return hyperv::kHypercallInvalidParameter;
      return HandlePostMessage(processor, parameter);
    case kSignalEventCall:
      if (!fast && !CopyFromGuest(parameter, &parameter, sizeof(parameter))) {
        return hyperv::kHypercallInvalidParameter;
      }
      // Only what has no eventfd in the kernel comes here. VMBus signals flag 0 of a connection.
      vmbus_.SignalEvent(static_cast<uint32_t>(parameter));
      return hyperv::kHypercallSuccess;
    default:
      return kUnknownCall;
  }
}

uint16_t KvmMachine::HandlePostMessage(Processor& processor, uint64_t input_gpa) {
  struct {
    uint32_t connection;
    uint32_t reserved;
    uint32_t type;
    uint32_t size;
    std::array<std::byte, hyperv::kSynicPayloadBytesMax> payload;
  } input;
  static_assert(sizeof(input) == 256);
  if (!CopyFromGuest(input_gpa, &input, sizeof(input))) return hyperv::kHypercallInvalidParameter;
  if (input.size > input.payload.size()) return hyperv::kHypercallInvalidParameter;
  UpdateSynic(processor, processor.synic);
  return vmbus_.PostMessage(processor.vp, input.connection,
                            std::span(input.payload).first(input.size));
}

bool KvmMachine::CopyFromGuest(uint64_t gpa, void* out, size_t bytes) const {
  const std::span<std::byte> memory = ram_.bytes();
  if (gpa > memory.size() || bytes > memory.size() - gpa) return false;
  std::memcpy(out, &memory[gpa], bytes);
  return true;
}

// KVM does not report writes to SINT2, and a masked one holds answers back: it is read
// with every other change, and before each post.
void KvmMachine::UpdateSynic(Processor& processor, hyperv::SynicRegisters registers) {
  struct {
    kvm_msrs header;
    kvm_msr_entry entry;
  } sint2{};
  sint2.header.nmsrs = 1;
  sint2.entry.index = kSint2Register;
  registers.sint2 = ioctl(processor.fd.get(), KVM_GET_MSRS, &sint2) == 1 ? sint2.entry.data
                                                                         : processor.synic.sint2;
  if (std::exchange(processor.synic, registers) == registers) return;
  vmbus_.SetSynic(processor.vp, registers);
}

}  // namespace vmbfs::test_vmm
