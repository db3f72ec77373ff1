// COM1: a 16550A, at any speed at once.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace vmbfs::test_vmm {

// Thread safety: any thread. Callbacks are called with its lock held.
// Bounds: kInputBytesMax bytes wait for the guest.
class SerialPort {
 public:
  static constexpr uint16_t kBasePort = 0x3f8;
  static constexpr uint16_t kPortCount = 8;
  static constexpr uint32_t kIrq = 4;
  static constexpr size_t kInputBytesMax = 4096;

  using Transmit = std::function<void(char)>;
  using SetInterrupt = std::function<void(bool raised)>;
  SerialPort(Transmit transmit, SetInterrupt set_interrupt);

  // One of the guest's accesses; `offset` is below kPortCount.
  uint8_t Read(uint16_t offset);
  void Write(uint16_t offset, uint8_t value);

  // Bytes for the guest; what finds no room is lost.
  void Input(std::string_view bytes);
  bool HasRoom() const;  // for half of kInputBytesMax

 private:
  bool DivisorLatch() const;
  uint8_t PendingInterrupt() const;
  void UpdateInterrupt();

  const Transmit transmit_;
  const SetInterrupt set_interrupt_;
  mutable std::mutex mutex_;  // guards all below
  std::deque<char> input_;
  bool sent_ = false;  // the transmitter became empty, and the guest does not know
  bool raised_ = false;
  std::array<uint8_t, kPortCount> registers_{};  // as written
};

}  // namespace vmbfs::test_vmm
