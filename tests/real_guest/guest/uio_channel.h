// A VMBus channel that Linux's uio_hv_generic gives to user space.
//
// The rings here are this program's own, written from the rules alone
// (shared/specs/vmbus.md sections 4, 5.1 and 8.2): nothing is shared with the
// server that is tested, so that a common mistake cannot hide.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace real_guest {

// Ends the program with 1, and says why on stderr.
[[noreturn]] void Fail(const std::string& why);

// The memory of the channel's first device file, opened; the guest's kernel
// opens the channel for it, and closes it when the file is closed.
//
// Thread safety: one thread. Errors: all end the program (Fail).
class UioChannel {
 public:
  // `instance_id`: of the device, in lower case, as sysfs names it.
  explicit UioChannel(const std::string& instance_id);
  ~UioChannel();
  UioChannel(const UioChannel&) = delete;
  UioChannel& operator=(const UioChannel&) = delete;

  // One pipe message to the host. REQUIRES: it fits the ring when that is empty.
  void Send(std::span<const std::byte> message);

  // The next pipe message, within kAnswerSecondsMax.
  std::vector<std::byte> Receive();

  // Overwrites the ring to the host, indices included, and rings the doorbell.
  void WriteGarbage();

 private:
  struct Ring {
    volatile uint32_t* control = nullptr;  // words of the control page
    std::byte* data = nullptr;
    uint32_t data_bytes = 0;
  };

  std::optional<std::vector<std::byte>> TakeMessage();
  void Sleep();
  void SignalHost();

  int fd_ = -1;
  std::byte* rings_ = nullptr;
  size_t rings_bytes_ = 0;
  std::byte* monitor_page_ = nullptr;
  std::optional<uint32_t> monitor_id_;  // signals go through the monitor page
  Ring to_host_;
  Ring from_host_;
};

}  // namespace real_guest
