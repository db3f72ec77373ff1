#include "tests/real_guest/pc/serial_port.h"

#include <utility>

namespace vmbfs::test_vmm {
namespace {

// Registers.
enum : uint16_t {
  kData = 0,             // while the divisor latch is open: the divisor
  kInterruptEnable = 1,  // and its high byte
  kInterruptId = 2,      // written: FIFO control
  kLineControl = 3,
  kLineStatus = 5,
  kModemStatus = 6,
};

// Their bits.
enum : uint8_t {
  kEnableReceived = 0x01,
  kEnableSent = 0x02,
  kIdNone = 0x01,
  kIdSent = 0x02,
  kIdReceived = 0x04,
  kIdFifos = 0xc0,
  kClearReceived = 0x02,  // FIFO control
  kDivisorLatch = 0x80,   // line control
  kDataReady = 0x01,      // line status
  kTransmitterEmpty = 0x60,
  kLineIsUp = 0xb0,  // modem status: carrier, ready, clear to send
};

}  // namespace

SerialPort::SerialPort(Transmit transmit, SetInterrupt set_interrupt)
    : transmit_(std::move(transmit)), set_interrupt_(std::move(set_interrupt)) {}

uint8_t SerialPort::Read(uint16_t offset) {
  const std::lock_guard lock(mutex_);
  uint8_t value = registers_[offset];
  switch (offset) {
    case kData:
      value = 0;
      if (DivisorLatch() || input_.empty()) break;
      value = static_cast<uint8_t>(input_.front());
      input_.pop_front();
      break;
    case kInterruptId:
      value = PendingInterrupt();
      if (value == kIdSent) sent_ = false;
      value |= kIdFifos;
      break;
    case kLineStatus:
      value = kTransmitterEmpty | (input_.empty() ? 0 : kDataReady);
      break;
    case kModemStatus:
      value = kLineIsUp;
      break;
  }
  UpdateInterrupt();
  return value;
}

void SerialPort::Write(uint16_t offset, uint8_t value) {
  const std::lock_guard lock(mutex_);
  // The divisor is of no use: bytes are as fast as they come.
  if (DivisorLatch() && offset <= kInterruptEnable) return;
  switch (offset) {
    case kData:
      transmit_(static_cast<char>(value));
      sent_ = true;
      break;
    case kInterruptEnable:
      value &= 0x0f;
      // Enabling the interrupt of an empty transmitter raises it.
      if ((value & ~registers_[kInterruptEnable] & kEnableSent) != 0) sent_ = true;
      break;
    case kInterruptId:
      if ((value & kClearReceived) != 0) input_.clear();
      break;
  }
  registers_[offset] = value;
  UpdateInterrupt();
}

bool SerialPort::DivisorLatch() const { return (registers_[kLineControl] & kDivisorLatch) != 0; }

void SerialPort::Input(std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  for (const char byte : bytes) {
    if (input_.size() < kInputBytesMax) input_.push_back(byte);
  }
  UpdateInterrupt();
}

bool SerialPort::HasRoom() const {
  const std::lock_guard lock(mutex_);
  return input_.size() <= kInputBytesMax / 2;
}

uint8_t SerialPort::PendingInterrupt() const {
  if ((registers_[kInterruptEnable] & kEnableReceived) != 0 && !input_.empty()) return kIdReceived;
  if ((registers_[kInterruptEnable] & kEnableSent) != 0 && sent_) return kIdSent;
  return kIdNone;
}

void SerialPort::UpdateInterrupt() {
  const bool raised = PendingInterrupt() != kIdNone;
  if (raised != std::exchange(raised_, raised)) set_interrupt_(raised);
}

}  // namespace vmbfs::test_vmm
