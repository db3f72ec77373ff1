// A device for tests: writes down what it was asked, and echoes packets.

#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/channel/channel_device.h"

namespace vmbfs::hyperv {

// Thread safety: any, for all but the ChannelDevice calls.
class FakeDevice final : public ChannelDevice {
 public:
  explicit FakeDevice(const Guid& instance_id = kInstance) {
    offer_.interface_id = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
    offer_.instance_id = instance_id;
    offer_.flags = kOfferFlagNamedPipe;
  }
  static constexpr Guid kInstance = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");

  const ChannelOffer& offer() const override { return offer_; }

  absl::Status Open(std::unique_ptr<Channel> channel, std::function<void()> wake) override {
    const std::lock_guard lock(mutex_);
    Note("Open");
    if (!open_result_.ok()) return open_result_;
    channel_ = std::move(channel);
    wake_ = std::move(wake);
    return absl::OkStatus();
  }

  absl::StatusOr<ChannelTurn> Run() override {
    const std::lock_guard lock(mutex_);
    ++runs_;
    changed_.notify_all();
    if (!run_result_.ok()) return run_result_;
    std::array<std::byte, 1024> buffer;
    ChannelTurn turn;
    while (true) {
      const auto packet = channel_->incoming().Read(buffer);
      if (!packet.ok()) return packet.status();
      if (!packet->has_value()) break;
      if (channel_->incoming().Consume()) channel_->SignalPeer();
      const auto& payload = (*packet)->payload;
      const auto room = channel_->outgoing().Reserve(payload.size());
      if (!room.ok()) return room.status();
      if (!*room) break;
      channel_->outgoing().CopyIn(0, payload);
      channel_->outgoing().Commit(payload.size());
      if (channel_->outgoing().Publish()) channel_->SignalPeer();
      ++turn.requests;
    }
    if (turns_wanted_ > 0) --turns_wanted_;
    if (turns_wanted_ > 0) turn.next = ChannelTurn::Next::kMore;
    return turn;
  }

  absl::StatusOr<Armed> Arm() override {
    const std::lock_guard lock(mutex_);
    ++arms_;
    const auto more = channel_->incoming().Arm();
    if (!more.ok()) return more.status();
    return *more ? Armed::kArrived : arm_result_;
  }

  void Close() override {
    const std::lock_guard lock(mutex_);
    Note("Close");
    channel_.reset();
  }

  // For the test.
  void FailOpen(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    open_result_ = status;
  }
  void FailRun(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    run_result_ = status;
  }
  void WantTurns(int turns) {
    const std::lock_guard lock(mutex_);
    turns_wanted_ = turns;
  }
  // What Arm finds where nothing arrived.
  void ArmAs(Armed armed) {
    const std::lock_guard lock(mutex_);
    arm_result_ = armed;
  }
  // Calls the last wake that Open was given. On the link's strand only.
  void Wake() {
    std::function<void()> wake;
    {
      const std::lock_guard lock(mutex_);
      wake = wake_;
    }
    wake();
  }
  int runs() const {
    const std::lock_guard lock(mutex_);
    return runs_;
  }
  int arms() const {
    const std::lock_guard lock(mutex_);
    return arms_;
  }
  std::vector<std::string> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  // false: it did not come to that in a long time.
  bool WaitForRuns(int runs) {
    return Wait([&] { return runs_ >= runs; });
  }
  bool WaitForEvents(size_t count) {
    return Wait([&] { return events_.size() >= count; });
  }

 private:
  void Note(const std::string& event) {
    events_.push_back(event);
    changed_.notify_all();
  }
  template <typename Predicate>
  bool Wait(Predicate predicate) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), predicate);
  }

  ChannelOffer offer_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
  int runs_ = 0;
  int arms_ = 0;
  int turns_wanted_ = 0;
  Armed arm_result_ = Armed::kSignal;
  absl::Status open_result_;
  absl::Status run_result_;
  std::unique_ptr<Channel> channel_;
  std::function<void()> wake_;
};

}  // namespace vmbfs::hyperv
