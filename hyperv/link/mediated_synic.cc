#include "hyperv/link/mediated_synic.h"

#include "hyperv/link/event_fd.h"

namespace vmbfs::hyperv {

MediatedSynic::MediatedSynic(SendMessage send_message, RequestEvent request_event)
    : send_message_(std::move(send_message)), request_event_(std::move(request_event)) {}

void MediatedSynic::SetRunning(bool running) {
  running_ = running;
  for (auto& [key, queue] : queues_) Unblock(key, queue);
}

// The VMM has the registers itself; that they changed is what matters here.
void MediatedSynic::SetRegisters(uint32_t vp, const SynicRegisters&) {
  for (auto entry = queues_.lower_bound({vp, 0});
       entry != queues_.end() && entry->first.first == vp; ++entry) {
    Unblock(entry->first, entry->second);
  }
}

void MediatedSynic::PostMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  const QueueKey key{vp, sint};
  Queue& queue = queues_[key];
  queue.messages.emplace_back(message.begin(), message.end());
  ++queued_messages_;
  Send(key, queue);
}

void MediatedSynic::EndOfMessage(uint32_t vp, uint8_t sint) {
  if (const auto found = queues_.find({vp, sint}); found != queues_.end()) {
    Unblock(found->first, found->second);
  }
}

void MediatedSynic::Retry() {
  for (auto& [key, queue] : queues_) {
    if (queue.state == Queue::State::kBusy) Unblock(key, queue);
  }
}

void MediatedSynic::Unblock(const QueueKey& key, Queue& queue) {
  if (queue.state != Queue::State::kSending) queue.state = Queue::State::kIdle;
  Send(key, queue);
}

void MediatedSynic::Send(const QueueKey& key, Queue& queue) {
  if (!running_ || queue.state != Queue::State::kIdle || queue.messages.empty()) return;
  queue.state = Queue::State::kSending;
  send_message_(*this, key.first, key.second, queue.messages.front());
}

// The first message is done with, unless it was dropped meanwhile.
void MediatedSynic::PopFirst(Queue& queue) {
  if (std::exchange(queue.dropped, false)) return;
  queue.messages.pop_front();
  --queued_messages_;
}

void MediatedSynic::MessageDone(uint32_t vp, uint8_t sint, LinkMsgResult result) {
  const auto found = queues_.find({vp, sint});
  if (found == queues_.end() || found->second.state != Queue::State::kSending) return;
  Queue& queue = found->second;
  if (result != LinkMsgResult::kDelivered && !queue.dropped) {
    queue.state = result == LinkMsgResult::kBusy ? Queue::State::kBusy : Queue::State::kNoPage;
    return;
  }
  queue.state = Queue::State::kIdle;
  PopFirst(queue);
  if (queue.messages.empty()) {
    queues_.erase(found);
  } else {
    Send(found->first, queue);
  }
}

void MediatedSynic::MessageRefused(uint32_t vp, uint8_t sint) {
  const auto found = queues_.find({vp, sint});
  if (found == queues_.end() || found->second.state != Queue::State::kSending) return;
  if (!found->second.dropped) ++dropped_messages_;
  MessageDone(vp, sint, LinkMsgResult::kDelivered);
}

void MediatedSynic::DropMessages() {
  for (auto entry = queues_.begin(); entry != queues_.end();) {
    Queue& queue = entry->second;
    queued_messages_ -= queue.messages.size();
    dropped_messages_ += queue.messages.size();
    queue.messages.clear();
    queue.dropped = queue.state == Queue::State::kSending;
    entry = queue.dropped ? std::next(entry) : queues_.erase(entry);
  }
}

void MediatedSynic::Acquire(uint32_t vp, uint16_t flag, OnReady on_ready) {
  const EventKey key{vp, flag};
  if (const auto found = events_.find(key); found != events_.end() && found->second.fd) {
    ++found->second.users;
    on_ready(absl::OkStatus());
    return;
  }
  if (waiters_ >= kWaitersMax) {
    on_ready(TooManyWaiters());
    return;
  }
  const auto [entry, is_new] = events_.try_emplace(key);
  ++entry->second.users;
  ++waiters_;
  entry->second.waiting.push_back(std::move(on_ready));
  if (is_new) request_event_(*this, vp, flag);
}

void MediatedSynic::Release(uint32_t vp, uint16_t flag) {
  const auto found = events_.find({vp, flag});
  if (found != events_.end() && --found->second.users == 0) events_.erase(found);
}

void MediatedSynic::SignalEvent(uint32_t vp, uint16_t flag) {
  if (!running_) return;
  const auto found = events_.find({vp, flag});
  if (found != events_.end() && found->second.fd) NotifyEventFd(found->second.fd);
}

void MediatedSynic::EventReady(uint32_t vp, uint16_t flag, UniqueFd event) {
  const auto found = events_.find({vp, flag});
  if (found == events_.end()) return;
  found->second.fd = std::move(event);
  // An acquirer that gave up releases it at once: the event may be gone then.
  for (const OnReady& on_ready : TakeWaiters(found->second.waiting)) {
    on_ready(absl::OkStatus());
  }
}

void MediatedSynic::EventRefused(uint32_t vp, uint16_t flag, const absl::Status& reason) {
  const auto found = events_.find({vp, flag});
  if (found == events_.end()) return;
  const std::vector<OnReady> waiting = TakeWaiters(found->second.waiting);
  events_.erase(found);
  for (const OnReady& on_ready : waiting) on_ready(reason);
}

}  // namespace vmbfs::hyperv
