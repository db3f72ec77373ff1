// A vmbfs device and a guest at the two ends of a channel in memory.
//
// Each side runs only when the other one woke it, so a signal that is missing
// shows as an answer that never comes.

#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/backing/backing.h"
#include "core/backing/memory_file.h"
#include "core/backing/single_file_backing.h"
#include "core/vmbfs/fake_blocking_runner.h"
#include "core/vmbfs/message_bytes.h"
#include "core/vmbfs/vmbfs_device.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs {

// As the firmware opens its channel: 16 KiB each way.
inline constexpr size_t kFirmwareDataPages = 4;

inline std::shared_ptr<const Backing> FileBacking(std::shared_ptr<const File> file,
                                                  std::string description = "test") {
  return std::make_shared<SingleFileBacking>(u"imc.hiv", std::move(file), std::move(description));
}
inline std::shared_ptr<const Backing> MemoryBacking(Bytes bytes, std::string description = "test") {
  return FileBacking(std::make_shared<MemoryFile>(std::move(bytes)), std::move(description));
}

// Bytes that differ with their place and with `seed`.
inline Bytes Pattern(size_t count, uint32_t seed = 1) {
  Bytes bytes(count);
  uint32_t state = seed;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}
inline Bytes Range(const Bytes& bytes, size_t offset, size_t count) {
  const auto begin = bytes.begin() + static_cast<ptrdiff_t>(offset);
  return Bytes(begin, begin + static_cast<ptrdiff_t>(count));
}

class DeviceTest : public testing::Test {
 protected:
  using Next = hyperv::ChannelTurn::Next;

  void MakeDevice(std::shared_ptr<const Backing> backing) {
    device_ = std::make_unique<VmbfsDevice>(kImcInstanceId, std::move(backing), runner_);
  }

  absl::Status TryOpen(size_t data_pages) {
    options_.data_pages = data_pages;
    options_.on_host_signalled = [this] { host_awake_ = true; };
    options_.on_guest_signalled = [this] {
      guest_awake_ = true;
      if (on_guest_signalled_) on_guest_signalled_();
    };
    guest_.reset();
    pair_.emplace(options_);
    guest_.emplace(pair_->OpenGuest().value());
    host_awake_ = true;
    guest_awake_ = true;
    return device_->Open(pair_->OpenHost().value(), [this] { host_awake_ = true; });
  }
  void Open(size_t data_pages = kFirmwareDataPages) {
    const absl::Status status = TryOpen(data_pages);
    ASSERT_TRUE(status.ok()) << status;
  }
  void OpenAndAgree(size_t data_pages = kFirmwareDataPages) {
    Open(data_pages);
    ASSERT_EQ(Exchange(VersionBytes()), VersionAnswer(0));
  }
  void Close() {
    device_->Close();
    guest_.reset();
  }

  // One turn of the device, if something woke it.
  void RunDeviceOnce() {
    if (!std::exchange(host_awake_, false)) return;
    const absl::StatusOr<hyperv::ChannelTurn> turn = device_->Run();
    ASSERT_TRUE(turn.ok()) << turn.status();
    if (turn->next == Next::kMore) host_awake_ = true;
    if (turn->next != Next::kIdle) return;
    const absl::StatusOr<hyperv::Armed> armed = device_->Arm();
    ASSERT_TRUE(armed.ok()) << armed.status();
    if (*armed == hyperv::Armed::kArrived) host_awake_ = true;
  }
  void RunDevice() {
    constexpr int kTurnsMax = 10000;
    for (int turn = 0; host_awake_ && turn < kTurnsMax; ++turn) RunDeviceOnce();
    ASSERT_FALSE(host_awake_) << "the device never sleeps";
  }
  // The reason why the device ends service at `message`.
  absl::Status FaultOf(const Bytes& message) {
    EXPECT_TRUE(Send(message));
    EXPECT_TRUE(host_awake_);
    return device_->Run().status();
  }

  bool Send(const Bytes& message) { return guest_->Write(message).value(); }

  // The next answer; nullopt when there is none now. A guest that finds none
  // sleeps until it is signalled.
  std::optional<Bytes> Receive() {
    constexpr size_t kPipeMessageBytesMax = 16384;
    Bytes buffer(kPipeMessageBytesMax);
    while (guest_awake_) {
      const auto message = guest_->Read(buffer);
      if (!message.ok()) {
        ADD_FAILURE() << message.status();
        return std::nullopt;
      }
      if (message->has_value()) {
        const Bytes answer((*message)->begin(), (*message)->end());
        guest_->Consume();
        return answer;
      }
      guest_awake_ = guest_->ArmRead().value();
    }
    return std::nullopt;
  }

  // An empty answer stands for none.
  Bytes Exchange(const Bytes& message) {
    EXPECT_TRUE(Send(message));
    RunDevice();
    return Receive().value_or(Bytes());
  }

  // Layout and masking may be set before an open.
  hyperv::ChannelPairOptions options_;
  std::optional<hyperv::ChannelPair> pair_;
  FakeBlockingRunner runner_;
  std::unique_ptr<VmbfsDevice> device_;
  std::optional<hyperv::MessagePipe> guest_;
  bool host_awake_ = false;
  bool guest_awake_ = false;
  std::function<void()> on_guest_signalled_;
};

}  // namespace vmbfs
