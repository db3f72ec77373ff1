#include "hyperv/link/link_session.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/link/event_fd.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kErrorBytesMax = 512;

}  // namespace

absl::StatusOr<std::shared_ptr<LinkSession>> LinkSession::Start(
    const boost::asio::any_io_executor& executor, UniqueFd socket,
    std::shared_ptr<LinkShared> shared, std::vector<std::shared_ptr<LinkDevice>> devices,
    std::function<void()> on_end) {
  absl::StatusOr<std::shared_ptr<LinkConnection>> connection =
      LinkConnection::Create(executor, std::move(socket), shared->connection);
  if (!connection.ok()) return connection.status();
  auto session = std::make_shared<LinkSession>(executor, std::move(shared), std::move(on_end));
  session->connection_ = *std::move(connection);
  session->devices_ = std::move(devices);
  session->connection_->Start(session);
  return session;
}

LinkSession::LinkSession(const boost::asio::any_io_executor& executor,
                         std::shared_ptr<LinkShared> shared, std::function<void()> on_end)
    : executor_(executor),
      shared_(std::move(shared)),
      on_end_(std::move(on_end)),
      memory_(shared_->memory) {}

void LinkSession::End(const absl::Status& reason) {
  if (std::exchange(ended_, true)) return;
  if (!absl::IsCancelled(reason)) NoteError(std::string(reason.message()));
  if (channels_) channels_->CloseAll();
  connection_->Close();
  bus_.reset();
  pending_.clear();
  posts_.clear();
  boost::asio::post(executor_, on_end_);
}

// Devices

absl::Status LinkSession::AddDevice(std::shared_ptr<LinkDevice> device) {
  if (bus_) {
    if (absl::Status status = OfferDevice(device); !status.ok()) return status;
  }
  devices_.push_back(std::move(device));
  return absl::OkStatus();
}

absl::Status LinkSession::OfferDevice(const std::shared_ptr<LinkDevice>& device) {
  const absl::StatusOr<OfferId> offer = bus_->Offer(device->device->offer());
  if (!offer.ok()) return offer.status();
  offers_[device.get()] = *offer;
  channels_->AddDevice(*offer, device);
  return absl::OkStatus();
}

void LinkSession::RemoveDevice(const LinkDevice& device) {
  std::erase_if(devices_, [&](const auto& held) { return held.get() == &device; });
  const auto offer = offers_.find(&device);
  if (offer == offers_.end() || !bus_) return;
  const OfferId id = offer->second;
  offers_.erase(offer);
  channels_->RemoveDevice(id);
  bus_->Revoke(id);
}

bool LinkSession::IsOpen(const LinkDevice& device) const {
  const auto offer = offers_.find(&device);
  return bus_ && offer != offers_.end() && channels_->IsOpen(offer->second);
}

void LinkSession::Describe(LinkStatus& status) const {
  status.connected = bus_ != nullptr;
  status.started = started_;
  status.paused = paused_;
  status.peer_label = label_;
  status.memory_regions = memory_.region_count();
  status.memory_bytes = memory_.total_bytes();
  if (!bus_) return;
  status.bus = bus_->status();
  const std::vector<BusChannelStatus> bus_channels = bus_->channels();
  for (LinkChannelStatus& channel : status.channels) {
    for (const auto& [device, offer] : offers_) {
      if (device->device.get() != channel.device) continue;
      channel.open = channels_->IsServed(offer);
      for (const BusChannelStatus& bus_channel : bus_channels) {
        if (bus_channel.offer == offer) channel.bus = bus_channel;
      }
    }
  }
}

// Frames

void LinkSession::OnFrame(LinkFrame frame) {
  if (ended_) return;
  ++shared_->frames_received;
  const LinkHeader header = frame.header;
  const absl::Status status = header.reply ? HandleReply(frame) : HandleRequest(frame);
  if (!status.ok()) {
    Violated(&header, status);
    return;
  }
  ConsumePosts();
}

void LinkSession::OnRoom() { ConsumePosts(); }

void LinkSession::OnBroken(const absl::Status& reason) {
  if (ended_) return;
  if (absl::IsInvalidArgument(reason)) {
    Violated(nullptr, reason);
  } else {
    End(reason);
  }
}

// Tells the VMM what it did wrong, if the socket takes it now, and ends.
void LinkSession::Violated(const LinkHeader* header, const absl::Status& reason) {
  ++shared_->frames_refused;
  const LinkError code =
      absl::IsUnimplemented(reason) ? LinkError::kNotSupported : LinkError::kProtocol;
  const bool answers = header != nullptr && !header->reply;
  connection_->Send(BuildError(answers ? header->type() : LinkType::kHello,
                               answers ? header->seq : 0, code, std::string(reason.message())));
  End(reason);
}

void LinkSession::Acknowledge(const LinkHeader& header) {
  if (header.wants_answer()) connection_->Send(BuildReply(header.type(), header.seq));
}

void LinkSession::Refuse(const LinkHeader& header, LinkError code, const std::string& reason) {
  ++shared_->frames_refused;
  NoteError(reason);
  connection_->Send(BuildError(header.type(), header.seq, code, reason));
}

void LinkSession::NoteError(const std::string& reason) {
  shared_->last_error = reason.substr(0, kErrorBytesMax);
}

absl::Status LinkSession::HandleRequest(LinkFrame& frame) {
  const LinkHeader& header = frame.header;
  if (header.type() == LinkType::kHello) return HandleHello(frame);
  if (!bus_) return absl::InvalidArgumentError(absl::StrCat(header.rule->name, " before HELLO"));
  switch (header.type()) {
    case LinkType::kMemAdd:
      return HandleMemAdd(frame);
    case LinkType::kMemDel:
      return HandleMemDel(frame);
    case LinkType::kSynic:
      return HandleSynic(frame);
    case LinkType::kPost:
      return HandlePost(frame);
    case LinkType::kSignal:
      return HandleSignal(frame);
    case LinkType::kEom:
      return HandleEom(frame);
    case LinkType::kStart:
    case LinkType::kPause:
    case LinkType::kResume:
      return HandleRun(frame);
    case LinkType::kReset:
      return HandleReset(frame);
    default:
      break;
  }
  const std::string reason = absl::StrCat(header.rule->name, " is not supported");
  if (header.wants_answer()) {
    Refuse(header, LinkError::kNotSupported, reason);
  } else {
    ++shared_->frames_refused;
  }
  return absl::OkStatus();
}

// Posts

void LinkSession::ConsumePosts() {
  while (!ended_ && bus_ && running() && !posts_.empty() && synic_->queued_messages() == 0 &&
         connection_->HasRoom()) {
    const LinkPost post = posts_.front();
    posts_.pop_front();
    ++shared_->posts;
    if (post.type == kSynicVmbusMessageType && post.size <= post.payload.size()) {
      bus_->HandleMessage(post.connection, std::span(post.payload).first(post.size));
    } else {
      ++shared_->frames_refused;
    }
    connection_->Send(BuildPostAck(next_seq_++, post.post_seq));
  }
}

// Requests to the VMM

uint64_t LinkSession::Expect(LinkType type, OnReply on_reply) {
  if (pending_.size() >= kPendingMax) {
    Later([](LinkSession& session) {
      session.End(absl::ResourceExhaustedError("too many requests wait for the VMM"));
    });
  }
  const uint64_t seq = next_seq_++;
  pending_[seq] = {.type = type, .on_reply = std::move(on_reply)};
  return seq;
}

absl::Status LinkSession::HandleReply(LinkFrame& frame) {
  const LinkHeader& header = frame.header;
  const auto found = pending_.find(header.seq);
  if (found == pending_.end() || found->second.type != header.type()) {
    return absl::InvalidArgumentError(
        absl::StrCat(header.rule->name, " reply ", header.seq, " answers no request"));
  }
  absl::Status result = header.error ? ParseErrorReply(frame.payload) : ParseEmpty(frame.payload);
  if (absl::IsInvalidArgument(result)) return result;
  if (!result.ok()) {
    result = absl::FailedPreconditionError(absl::StrCat(header.rule->name, ": ", result.message()));
    NoteError(std::string(result.message()));
  }
  const Pending pending = std::move(found->second);
  pending_.erase(found);
  pending.on_reply(result, std::move(frame.descriptors));
  return absl::OkStatus();
}

void LinkSession::RequestSint(uint32_t vp, uint8_t sint) {
  const uint64_t seq = Expect(
      LinkType::kSintGet, [this, vp, sint](const absl::Status& result, Descriptors descriptors) {
        absl::Status status = result;
        if (status.ok()) status = TakeSint(vp, sint, std::move(descriptors));
        if (!status.ok()) synic_->SintRefused(vp, sint, status);
      });
  connection_->Send(BuildSintGet(seq, vp, sint));
}

absl::Status LinkSession::TakeSint(uint32_t vp, uint8_t sint, Descriptors descriptors) {
  for (const UniqueFd& descriptor : descriptors) {
    if (absl::Status status = CheckEventFd(descriptor); !status.ok()) {
      NoteError(absl::StrCat("SINT_GET: ", status.message()));
      return status;
    }
  }
  std::shared_ptr<EventWaiter> ack;
  if (descriptors.size() > 1) {
    absl::StatusOr<std::shared_ptr<EventWaiter>> waiter = EventWaiter::Start(
        executor_, std::move(descriptors[1]), [weak = weak_from_this(), vp, sint] {
          const std::shared_ptr<LinkSession> self = weak.lock();
          if (self == nullptr || self->ended_) return;
          self->synic_->EndOfMessage(vp, sint);
          self->ConsumePosts();
        });
    if (!waiter.ok()) return waiter.status();
    ack = *std::move(waiter);
  }
  synic_->SintReady(vp, sint, std::move(descriptors[0]), std::move(ack));
  return absl::OkStatus();
}

void LinkSession::SetConnection(uint32_t connection_id, UniqueFd doorbell,
                                std::function<void(const absl::Status&)> done) {
  const uint64_t seq = Expect(
      LinkType::kConnSet,
      [done = std::move(done)](const absl::Status& result, const Descriptors&) { done(result); });
  connection_->Send(BuildConnSet(seq, connection_id), std::move(doorbell));
}

void LinkSession::ClearConnection(uint32_t connection_id) {
  const uint64_t seq = Expect(LinkType::kConnClr, [](const absl::Status&, const Descriptors&) {});
  connection_->Send(BuildConnClr(seq, connection_id));
}

void LinkSession::Faulted(const ChannelDevice& device, const absl::Status& reason) {
  if (shared_->on_fault) shared_->on_fault(device, reason);
}

// The bus: its requests at once, the answers to it later

void LinkSession::SendMessage(uint32_t vp, uint8_t sint, std::span<const std::byte> message) {
  if (vp >= synic_->vp_count() || sint >= kLinkSints) return;  // the guest's own mistake
  if (synic_->queued_messages() >= Synic::kMessagesMax) {
    Later([](LinkSession& session) {
      session.End(absl::ResourceExhaustedError("too many messages wait for the guest"));
    });
    return;
  }
  synic_->PostMessage(vp, sint, message);
}

void LinkSession::OpenChannel(const OpenRequest& request) { channels_->Open(request); }
void LinkSession::CloseChannel(OfferId offer) { channels_->Close(offer); }
void LinkSession::ModifyChannel(OfferId offer, uint32_t target_vp) {
  channels_->Modify(offer, target_vp);
}
void LinkSession::OfferReleased(OfferId) {}  // RemoveDevice forgot it
void LinkSession::DropQueuedMessages() { synic_->DropMessages(); }

void LinkSession::OpenDone(OfferId offer, const absl::Status& result) {
  if (!result.ok()) OpenRefused(offer, result);
  Later([offer, result](LinkSession& session) { session.bus_->OpenDone(offer, result); });
}

void LinkSession::OpenRefused(OfferId refused, const absl::Status& reason) {
  NoteError(absl::StrCat("open refused: ", reason.message()));
  if (!shared_->on_open_refused) return;
  for (const auto& [device, offer] : offers_) {
    if (offer == refused) shared_->on_open_refused(*device->device, reason);
  }
}

void LinkSession::CloseDone(OfferId offer) {
  Later([offer](LinkSession& session) { session.bus_->CloseDone(offer); });
}

void LinkSession::ModifyDone(OfferId offer, const absl::Status& result) {
  Later([offer, result](LinkSession& session) { session.bus_->ModifyDone(offer, result); });
}

void LinkSession::Later(std::function<void(LinkSession&)> action) {
  boost::asio::post(executor_, [weak = weak_from_this(), action = std::move(action)] {
    const std::shared_ptr<LinkSession> self = weak.lock();
    if (self == nullptr || self->ended_) return;
    action(*self);
    self->ConsumePosts();
  });
}

}  // namespace vmbfs::hyperv
