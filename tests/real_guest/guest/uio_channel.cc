#include "tests/real_guest/guest/uio_channel.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>

namespace real_guest {
namespace {

constexpr int kAnswerSecondsMax = 60;
constexpr uint32_t kPageBytes = 4096;

// Words of a ring's control page.
constexpr size_t kWriteIndex = 0;
constexpr size_t kReadIndex = 1;
constexpr size_t kInterruptMask = 2;
constexpr size_t kPendingSendSize = 3;

constexpr uint16_t kInBand = 6;
constexpr uint32_t kPipeData = 1;

// Before the data of a message, and behind it.
struct PacketStart {
  uint16_t type;
  uint16_t data_offset_8;
  uint16_t length_8;
  uint16_t flags;
  uint64_t transaction;
  uint32_t pipe_type;
  uint32_t pipe_bytes;
};
constexpr uint32_t kPacketStartBytes = 24;
static_assert(sizeof(PacketStart) == kPacketStartBytes);
constexpr uint32_t kTrailerBytes = 8;

// Where the trigger bits of a monitor page's groups are.
constexpr size_t kTriggerGroups = 8;

void Fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The device file's name: the one entry of the device's uio folder.
std::string UioName(const std::string& device) {
  DIR* folder = opendir((device + "/uio").c_str());
  if (folder == nullptr) Fail("no uio device of " + device);
  std::string name;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') name = entry->d_name;
  }
  closedir(folder);
  if (name.empty()) Fail("no uio device of " + device);
  return name;
}

std::byte* Map(int fd, size_t number, size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                       static_cast<off_t>(number * kPageBytes));
  if (address == MAP_FAILED) {
    Fail("mapping " + std::to_string(number) + ": " + std::strerror(errno));
  }
  return static_cast<std::byte*>(address);
}

uint32_t RoundUp8(size_t bytes) { return static_cast<uint32_t>((bytes + 7) & ~size_t{7}); }

// Copies that wrap at the end of the data area.
void CopyIn(std::byte* data, uint32_t data_bytes, uint32_t at, const void* from, size_t bytes) {
  const size_t before_end = std::min<size_t>(bytes, data_bytes - at);
  std::memcpy(data + at, from, before_end);
  std::memcpy(data, static_cast<const std::byte*>(from) + before_end, bytes - before_end);
}
void CopyOut(const std::byte* data, uint32_t data_bytes, uint32_t at, void* to, size_t bytes) {
  const size_t before_end = std::min<size_t>(bytes, data_bytes - at);
  std::memcpy(to, data + at, before_end);
  std::memcpy(static_cast<std::byte*>(to) + before_end, data, bytes - before_end);
}

}  // namespace

void Fail(const std::string& why) {
  std::cerr << "uio-guest: " << why << std::endl;
  std::_Exit(1);  // the kernel closes the channel
}

UioChannel::UioChannel(const std::string& instance_id) {
  const std::string device = "/sys/bus/vmbus/devices/" + instance_id;
  const std::string uio = UioName(device);
  rings_bytes_ = std::stoul(FirstLine("/sys/class/uio/" + uio + "/maps/map0/size"), nullptr, 0);
  fd_ = open(("/dev/" + uio).c_str(), O_RDWR | O_CLOEXEC);
  if (fd_ < 0) Fail("/dev/" + uio + ": " + std::strerror(errno));
  rings_ = Map(fd_, 0, rings_bytes_);
  const size_t half = rings_bytes_ / 2;
  const auto ring_at = [half](std::byte* start) {
    return Ring{.control = reinterpret_cast<volatile uint32_t*>(start),
                .data = start + kPageBytes,
                .data_bytes = static_cast<uint32_t>(half - kPageBytes)};
  };
  to_host_ = ring_at(rings_);
  from_host_ = ring_at(rings_ + half);
  // sysfs has a monitor's number for channels that have one.
  if (const std::string id = FirstLine(device + "/monitor_id"); !id.empty()) {
    monitor_id_ = static_cast<uint32_t>(std::stoul(id));
    monitor_page_ = Map(fd_, 2, kPageBytes);
  }
}

UioChannel::~UioChannel() {
  if (monitor_page_ != nullptr) munmap(monitor_page_, kPageBytes);
  if (rings_ != nullptr) munmap(rings_, rings_bytes_);
  if (fd_ >= 0) close(fd_);
}

void UioChannel::Send(std::span<const std::byte> message) {
  const uint32_t body_bytes = kPacketStartBytes + RoundUp8(message.size());
  const uint32_t total_bytes = body_bytes + kTrailerBytes;
  const uint32_t ring_bytes = to_host_.data_bytes;
  const uint32_t write = to_host_.control[kWriteIndex];
  const auto used = [&] {
    return (write + ring_bytes - to_host_.control[kReadIndex]) % ring_bytes;
  };
  while (ring_bytes - used() <= total_bytes) {
    to_host_.control[kPendingSendSize] = total_bytes;
    Fence();
    if (ring_bytes - used() <= total_bytes) Sleep();
  }
  to_host_.control[kPendingSendSize] = 0;

  const PacketStart start = {.type = kInBand,
                             .data_offset_8 = 2,
                             .length_8 = static_cast<uint16_t>(body_bytes / 8),
                             .flags = 0,
                             .transaction = 0,
                             .pipe_type = kPipeData,
                             .pipe_bytes = static_cast<uint32_t>(message.size())};
  const uint64_t trailer = uint64_t{write} << 32;
  CopyIn(to_host_.data, ring_bytes, write, &start, sizeof(start));
  CopyIn(to_host_.data, ring_bytes, (write + kPacketStartBytes) % ring_bytes, message.data(),
         message.size());
  CopyIn(to_host_.data, ring_bytes, (write + body_bytes) % ring_bytes, &trailer, sizeof(trailer));
  std::atomic_thread_fence(std::memory_order_release);
  to_host_.control[kWriteIndex] = (write + total_bytes) % ring_bytes;
  Fence();
  if (to_host_.control[kInterruptMask] == 0 && to_host_.control[kReadIndex] == write) SignalHost();
}

std::vector<std::byte> UioChannel::Receive() {
  for (;;) {
    if (auto message = TakeMessage()) return *std::move(message);
    from_host_.control[kInterruptMask] = 0;
    Fence();
    if (auto message = TakeMessage()) return *std::move(message);
    Sleep();
  }
}

std::optional<std::vector<std::byte>> UioChannel::TakeMessage() {
  const uint32_t ring_bytes = from_host_.data_bytes;
  const uint32_t read = from_host_.control[kReadIndex];
  const uint32_t write = from_host_.control[kWriteIndex];
  if (read == write) return std::nullopt;
  std::atomic_thread_fence(std::memory_order_acquire);
  const auto used_from = [&](uint32_t index) {
    return (from_host_.control[kWriteIndex] + ring_bytes - index) % ring_bytes;
  };
  PacketStart start;
  CopyOut(from_host_.data, ring_bytes, read, &start, sizeof(start));
  const uint32_t total_bytes = uint32_t{start.length_8} * 8 + kTrailerBytes;
  if (start.type != kInBand || start.flags != 0 || start.data_offset_8 != 2 ||
      start.pipe_type != kPipeData || total_bytes > used_from(read) ||
      start.pipe_bytes > total_bytes - sizeof(start) - kTrailerBytes) {
    Fail("the host wrote a packet that is none");
  }
  std::vector<std::byte> message(start.pipe_bytes);
  CopyOut(from_host_.data, ring_bytes, (read + kPacketStartBytes) % ring_bytes, message.data(),
          message.size());
  uint64_t trailer = 0;
  CopyOut(from_host_.data, ring_bytes, (read + uint32_t{start.length_8} * 8) % ring_bytes, &trailer,
          sizeof(trailer));
  if (trailer != uint64_t{read} << 32) Fail("a packet's trailer names another place");
  std::atomic_thread_fence(std::memory_order_release);
  const uint32_t next = (read + total_bytes) % ring_bytes;
  from_host_.control[kReadIndex] = next;
  Fence();
  // A full ring's writer waits for room: signal when it has it now, and had not before.
  const uint32_t wanted = from_host_.control[kPendingSendSize] & ~uint32_t{7};
  if (wanted != 0 && ring_bytes - used_from(read) - 8 < wanted &&
      ring_bytes - used_from(next) - 8 >= wanted) {
    SignalHost();
  }
  return message;
}

void UioChannel::Sleep() {
  pollfd waiting = {.fd = fd_, .events = POLLIN, .revents = 0};
  const int ready = poll(&waiting, 1, kAnswerSecondsMax * 1000);
  if (ready == 0) Fail("no answer within " + std::to_string(kAnswerSecondsMax) + " s");
  int32_t interrupts = 0;
  if (ready < 0 || read(fd_, &interrupts, sizeof(interrupts)) != sizeof(interrupts)) {
    Fail(errno == EIO ? "the device is gone" : std::strerror(errno));
  }
}

void UioChannel::SignalHost() {
  if (monitor_id_) {
    auto* pending = reinterpret_cast<uint32_t*>(monitor_page_ + kTriggerGroups) +
                    size_t{2} * (*monitor_id_ / 32);
    std::atomic_ref(*pending).fetch_or(uint32_t{1} << *monitor_id_ % 32);
    return;
  }
  const int32_t on = 1;
  if (write(fd_, &on, sizeof(on)) != sizeof(on)) {
    Fail(std::string("signalling the host: ") + std::strerror(errno));
  }
}

void UioChannel::WriteGarbage() {
  std::memset(to_host_.data, 0xA5, to_host_.data_bytes);
  to_host_.control[kWriteIndex] = 0xA5A5A5A5;
  Fence();
  SignalHost();
}

}  // namespace real_guest
