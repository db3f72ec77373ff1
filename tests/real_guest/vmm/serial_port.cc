#include "tests/real_guest/vmm/serial_port.h"

#include <utility>

namespace vmbfs::test_vmm {
namespace {

enum Register : uint16_t {
  kData = 0,
  kInterruptEnable = 1,
  kInterruptId = 2,  // written: FIFO control
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

constexpr uint8_t kDivisorLatch = 0x80;        // line control
constexpr uint8_t kLoopback = 0x10;            // modem control
constexpr uint8_t kEnableReceived = 0x01;      // interrupt enable
constexpr uint8_t kEnableSent = 0x02;          // interrupt enable
constexpr uint8_t kIdNone = 0x01;              // interrupt identification
constexpr uint8_t kIdSent = 0x02;              // interrupt identification
constexpr uint8_t kIdReceived = 0x04;          // interrupt identification
constexpr uint8_t kIdFifos = 0xc0;             // interrupt identification
constexpr uint8_t kFifoEnable = 0x01;          // FIFO control
constexpr uint8_t kClearReceived = 0x02;       // FIFO control
constexpr uint8_t kDataReady = 0x01;           // line status
constexpr uint8_t kTransmitterEmpty = 0x60;    // line status
constexpr uint8_t kCarrierAndReady = 0xb0;     // modem status

}  // namespace

SerialPort::SerialPort(Transmit transmit, SetInterrupt set_interrupt)
    : transmit_(std::move(transmit)), set_interrupt_(std::move(set_interrupt)) {}

uint8_t SerialPort::Read(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  const bool divisor = (line_control_ & kDivisorLatch) != 0;
  uint8_t value = 0;
  switch (offset) {
    case kData:
      if (divisor) return static_cast<uint8_t>(divisor_);
      if (input_.empty()) return 0;
      value = static_cast<uint8_t>(input_.front());
      input_.pop_front();
      break;
    case kInterruptEnable:
      return divisor ? static_cast<uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kInterruptId:
      value = PendingInterrupt();
      if (value == kIdSent) sent_ = false;
      if ((fifo_control_ & kFifoEnable) != 0) value |= kIdFifos;
      break;
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return kTransmitterEmpty | (input_.empty() ? 0 : kDataReady);
    case kModemStatus:
      // In loopback the guest sees its own lines, and so finds the chip.
      if ((modem_control_ & kLoopback) == 0) return kCarrierAndReady;
      return static_cast<uint8_t>((modem_control_ & 0x0c) << 4 | (modem_control_ & 0x02) << 3 |
                                  (modem_control_ & 0x01) << 5);
    case kScratch:
      return scratch_;
  }
  UpdateInterrupt();
  return value;
}

void SerialPort::Write(uint16_t offset, uint8_t value) {
  const std::lock_guard lock(mutex_);
  const bool divisor = (line_control_ & kDivisorLatch) != 0;
  switch (offset) {
    case kData:
      if (divisor) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
        return;
      }
      if ((modem_control_ & kLoopback) == 0) transmit_(static_cast<char>(value));
      sent_ = true;
      break;
    case kInterruptEnable:
      if (divisor) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | value << 8);
        return;
      }
      // Enabling the interrupt of an empty transmitter raises it.
      if ((value & ~interrupt_enable_ & kEnableSent) != 0) sent_ = true;
      interrupt_enable_ = value & 0x0f;
      break;
    case kInterruptId:
      fifo_control_ = value;
      if ((value & kClearReceived) != 0) input_.clear();
      break;
    case kLineControl:
      line_control_ = value;
      return;
    case kModemControl:
      modem_control_ = value;
      return;
    case kScratch:
      scratch_ = value;
      return;
  }
  UpdateInterrupt();
}

void SerialPort::Input(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  for (const char byte : bytes) {
    if (input_.size() < kInputBytesMax) input_.push_back(byte);
  }
  UpdateInterrupt();
}

bool SerialPort::HasRoom() const {
  const std::lock_guard lock(mutex_);
  return input_.size() < kInputBytesMax;
}

uint8_t SerialPort::PendingInterrupt() const {
  if ((interrupt_enable_ & kEnableReceived) != 0 && !input_.empty()) return kIdReceived;
  if ((interrupt_enable_ & kEnableSent) != 0 && sent_) return kIdSent;
  return kIdNone;
}

void SerialPort::UpdateInterrupt() {
  const bool raised = PendingInterrupt() != kIdNone;
  if (raised != std::exchange(raised_, raised)) set_interrupt_(raised);
}

}  // namespace vmbfs::test_vmm
