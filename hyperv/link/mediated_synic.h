// MEDIATED delivery: the VMM writes message slots and event flags for us, one
// message at a time for each processor and interrupt source.
//
// Trust: results and eventfds are the VMM's; what it says of one source holds up
// or loses that source's messages and no other's. Rules: README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_format.h"
#include "hyperv/link/synic.h"

namespace vmbfs::hyperv {

// Does no I/O but writes to event eventfds.
//
// Thread safety: one strand.
// Bounds: as Synic; an eventfd for each event in use.
class MediatedSynic final : public Synic {
 public:
  // Asks the VMM to deliver a message; MessageDone or MessageRefused is the
  // answer, later.
  using SendMessage = std::function<void(MediatedSynic& asker, uint32_t vp, uint8_t sint,
                                         std::span<const std::byte> message)>;
  // Asks the VMM for an event's eventfd; EventReady or EventRefused is the
  // answer, later.
  using RequestEvent = std::function<void(MediatedSynic& asker, uint32_t vp, uint16_t flag)>;

  MediatedSynic(SendMessage send_message, RequestEvent request_event);

  void SetRunning(bool running) override;
  void SetRegisters(uint32_t vp, const SynicRegisters& registers) override;
  void MemoryChanged() override {}
  void PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) override;
  void EndOfMessage(uint32_t vp, uint8_t sint) override;
  void Retry() override;
  void DropMessages() override;
  void Acquire(uint32_t vp, uint16_t flag, OnReady on_ready) override;
  void Release(uint32_t vp, uint16_t flag) override;
  void SignalEvent(uint32_t vp, uint16_t flag) override;

  void MessageDone(uint32_t vp, uint8_t sint, LinkMsgResult result);
  // The message is dropped.
  void MessageRefused(uint32_t vp, uint8_t sint);
  void EventReady(uint32_t vp, uint16_t flag, UniqueFd event);
  void EventRefused(uint32_t vp, uint16_t flag, const absl::Status& reason);

 private:
  // Of one processor and interrupt source.
  struct Queue {
    enum class State {
      kIdle,
      kSending,  // the first message is with the VMM
      kBusy,     // the VMM found the slot full
      kNoPage,   // the VMM found no message page
    };
    State state = State::kIdle;
    bool dropped = false;  // with kSending: that message is none of `messages`
    std::deque<std::vector<std::byte>> messages;
  };
  struct Event {
    UniqueFd fd;  // empty until EventReady
    size_t users = 0;
    std::vector<OnReady> waiting;
  };
  using QueueKey = std::pair<uint32_t, uint8_t>;
  using EventKey = std::pair<uint32_t, uint16_t>;

  void Unblock(const QueueKey& key, Queue& queue);
  void Send(const QueueKey& key, Queue& queue);
  void PopFirst(Queue& queue);

  const SendMessage send_message_;
  const RequestEvent request_event_;
  bool running_ = false;
  std::map<QueueKey, Queue> queues_;
  std::map<EventKey, Event> events_;
};

}  // namespace vmbfs::hyperv
