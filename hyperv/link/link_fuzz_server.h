// What stands on the host's side of link_fuzz: the server under test with its
// device, and guest memory that both sides see.

#pragma once

#include <sys/mman.h>

#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/guid/guid.h"
#include "hyperv/link/link_harness.h"
#include "hyperv/link/link_server.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

inline constexpr size_t kRamPages = 8;    // page 1: message slots, page 2: event flags
inline constexpr size_t kRingPages = 10;  // five for each ring
inline constexpr uint64_t kRingGpa = 0x100000;

// Sends packets back, and watches that it is called in order.
class EchoDevice final : public ChannelDevice {
 public:
  EchoDevice() {
    offer_.interface_id = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
    offer_.flags = kOfferFlagNamedPipe;
  }
  const ChannelOffer& offer() const override { return offer_; }

  absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()>) override {
    Require(channel_ == nullptr, "one open at a time");
    channel_ = std::move(channel);
    return absl::OkStatus();
  }
  absl::StatusOr<ChannelTurn> Run() override {
    Require(channel_ != nullptr, "only an open device runs");
    std::array<std::byte, 1024> buffer;
    ChannelTurn turn;
    for (int packets = 0; packets < 16; ++packets) {
      const auto packet = channel_->incoming().Read(buffer);
      if (!packet.ok()) return packet.status();
      if (!packet->has_value()) return turn;
      ++turn.requests;
      if (channel_->incoming().Consume()) channel_->SignalPeer();
      const auto room = channel_->outgoing().Reserve((*packet)->payload.size());
      if (!room.ok()) return room.status();
      if (!*room) continue;
      channel_->outgoing().CopyIn(0, (*packet)->payload);
      channel_->outgoing().Commit((*packet)->payload.size());
      if (channel_->outgoing().Publish()) channel_->SignalPeer();
    }
    turn.next = ChannelTurn::Next::kMore;
    return turn;
  }
  absl::StatusOr<Armed> Arm() override {
    Require(channel_ != nullptr, "only an open device is armed");
    const auto arrived = channel_->incoming().Arm();
    if (!arrived.ok()) return arrived.status();
    return *arrived ? Armed::kArrived : Armed::kSignal;
  }
  void Close() override {
    Require(channel_ != nullptr, "only an open device is closed");
    channel_.reset();
  }
  bool open() const { return channel_ != nullptr; }

 private:
  ChannelOffer offer_;
  std::unique_ptr<Channel> channel_;
};

// The server under test, for the life of the process.
class Server {
 public:
  Server() {
    LinkOptions options;
    options.socket_path = path_;
    Require(server_.Listen(options).ok(), "the server listens");
    server_.Start();
  }
  // Lets everything happen that can; false when nothing could.
  bool Poll() {
    constexpr int kHandlersMax = 100'000;
    int handlers = 0;
    while (context_.poll_one() > 0) Require(++handlers < kHandlersMax, "the server comes to rest");
    return handlers > 0;
  }
  // The device goes, or comes (back). It comes in any case for a new connection.
  void RevokeDevice() {
    if (std::exchange(offered_, false)) server_.Remove(*device_);
  }
  bool OfferDevice() {
    if (!offered_) offered_ = server_.Add(device_).ok();
    return offered_;
  }
  const std::string& path() const { return path_; }
  LinkStatus status() const { return server_.status(); }
  const EchoDevice& device() const { return *device_; }

 private:
  ScratchFolder folder_;
  std::string path_ = folder_.Path("vm.sock");
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  LinkServer server_{context_.get_executor()};
  std::shared_ptr<EchoDevice> device_ = std::make_shared<EchoDevice>();
  bool offered_ = false;
};

inline Server& TheServer() {
  static Server* const server = new Server;  // its folder goes with the sandbox
  return *server;
}

// Guest memory in a sealed memfd, seen by both sides.
class SharedPages {
 public:
  explicit SharedPages(size_t pages) : bytes_(pages * 4096), fd_(TestMemory(bytes_, SealShrink())) {
    void* mapped = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    Require(mapped != MAP_FAILED, "memory is mapped");
    data_ = static_cast<std::byte*>(mapped);
  }
  void Clear() { std::memset(data_, 0, bytes_); }
  std::vector<std::byte> Copy() const { return {data_, data_ + bytes_}; }
  std::byte* at(size_t offset) const { return data_ + offset % bytes_; }
  uint32_t Word(size_t offset) const {
    uint32_t word = 0;
    std::memcpy(&word, data_ + offset, sizeof(word));
    return word;
  }
  void SetWord(size_t offset, uint32_t word) { std::memcpy(data_ + offset, &word, sizeof(word)); }
  size_t bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  size_t bytes_;
  UniqueFd fd_;
  std::byte* data_ = nullptr;
};

inline SharedPages& Ram() {
  static SharedPages pages(kRamPages);
  return pages;
}
inline SharedPages& Rings() {
  static SharedPages pages(kRingPages);
  return pages;
}

}  // namespace vmbfs::hyperv
