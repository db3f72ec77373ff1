#include "tests/limits/hostile_vm.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/endian/buffers.hpp>
#include <cstring>
#include <utility>

#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/pipe/pipe_format.h"
#include "hyperv/ring/outgoing_ring.h"

namespace vmbfs {

using hyperv::GuestMessage;
using hyperv::GuestProfile;
using hyperv::LinkType;
using hyperv::MessageType;

namespace {

constexpr GuestProfile kProfile = GuestProfile::kLinux;
// Where the two channels' rings lie, behind the SynIC pages.
constexpr uint64_t kRingsPage = 8192;
constexpr size_t kHostToGuestPages = 10;
constexpr size_t kGuestToHostPages = HostileVm::kRingPages - kHostToGuestPages;

template <typename Wire>
void Append(std::vector<std::byte>& bytes, const Wire& wire) {
  const auto from = std::as_bytes(std::span(&wire, 1));
  bytes.insert(bytes.end(), from.begin(), from.end());
}

void AppendWord(std::vector<std::byte>& bytes, uint64_t word) {
  Append(bytes, boost::endian::little_uint64_buf_t(word));
}

// The header of a GPADL; words are to follow.
GuestMessage GpadlHeader(uint32_t channel_id, uint32_t gpadl_id, size_t range_count, size_t words) {
  hyperv::GpadlHeaderMessage header{};
  header.header.type = static_cast<uint32_t>(MessageType::kGpadlHeader);
  header.channel_id = channel_id;
  header.gpadl_id = gpadl_id;
  header.range_buffer_bytes = static_cast<uint16_t>(words * sizeof(uint64_t));
  header.range_count = static_cast<uint16_t>(range_count);
  GuestMessage message;
  Append(message, header);
  return message;
}

// As many words as a body can have.
GuestMessage GpadlBody(uint32_t gpadl_id) {
  hyperv::GpadlBodyMessage body{};
  body.header.type = static_cast<uint32_t>(MessageType::kGpadlBody);
  body.gpadl_id = gpadl_id;
  GuestMessage message;
  Append(message, body);
  message.resize(sizeof(body) + hyperv::kGpadlBodyWordsMax * sizeof(uint64_t), std::byte{1});
  return message;
}

GuestMessage Contact(uint32_t vp, uint8_t sint) {
  GuestMessage message = hyperv::BuildInitiateContact(kProfile, hyperv::kVersion5_3, vp, {});
  message[offsetof(hyperv::InitiateContactMessage, target_sint)] = static_cast<std::byte>(sint);
  return message;
}

// In falling order: no page has its neighbour behind it.
std::vector<uint64_t> RingPageFrames(uint32_t channel_id) {
  std::vector<uint64_t> page_frames;
  for (size_t i = 0; i < HostileVm::kRingPages; ++i) {
    page_frames.push_back(kRingsPage + channel_id * HostileVm::kRingPages - 1 - i);
  }
  return page_frames;
}

// A set-up as a pipe message: each page is a range.
std::vector<std::byte> SetUpMessage(uint32_t handle, size_t pages) {
  hyperv::PipeHeader header;
  header.type = static_cast<uint32_t>(hyperv::PipeMessageType::kSetUpGpaDirect);
  header.data_bytes =
      static_cast<uint32_t>(sizeof(hyperv::GpaDirectSetUp) + pages * 2 * sizeof(uint64_t));
  hyperv::GpaDirectSetUp set_up;
  set_up.handle = handle;
  set_up.writable = uint8_t{1};
  set_up.range_count = static_cast<uint32_t>(pages);
  std::vector<std::byte> message;
  Append(message, header);
  Append(message, set_up);
  for (size_t i = 0; i < pages; ++i) {
    AppendWord(message, hyperv::kPageBytes);
    AppendWord(message, i);
  }
  return message;
}

}  // namespace

// Posts and messages

absl::Status HostileVm::Post(std::span<const std::byte> message) {
  absl::Status room =
      PumpUntil([this] { return posts_sent_ - posts_acknowledged_ < hyperv::kLinkPostsMax; });
  if (!room.ok()) return room;
  hyperv::LinkPostWire post{};
  post.post_seq = ++posts_sent_;
  post.connection = hyperv::kMultiClientMessageConnection;
  post.type = hyperv::kSynicMessageType;
  post.size = static_cast<uint32_t>(message.size());
  std::memcpy(&post.payload, message.data(), message.size());
  return Send(LinkType::kPost, std::as_bytes(std::span(&post, 1)));
}

absl::Status HostileVm::PostAll(const std::vector<GuestMessage>& messages) {
  for (const GuestMessage& message : messages) {
    if (absl::Status status = Post(message); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status HostileVm::PostsDone() {
  return PumpUntil([this] { return posts_acknowledged_ == posts_sent_; });
}

absl::Status HostileVm::TakeMessages() {
  for (;;) {
    const auto message = synic_.TakeMessage();
    if (!message.ok()) return message.status();
    if (!message->has_value()) return absl::OkStatus();
    Note(**message);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t bytes = write(end_of_message_.get(), &one, sizeof(one));
  }
}

void HostileVm::Note(const hyperv::TakenMessage& message) {
  const auto word_at = [&](size_t offset) {
    boost::endian::little_uint32_buf_t word;
    std::memcpy(&word, &message.payload[offset], sizeof(word));
    return word.value();
  };
  const auto type = static_cast<MessageType>(word_at(0));
  ++taken_[type];
  if (type == MessageType::kOfferChannel) {
    hyperv::OfferChannelMessage offer;
    std::memcpy(static_cast<void*>(&offer), message.payload.data(), sizeof(offer));
    offered_[offer.channel_id.value()] = offer.connection_id.value();
  } else if (type == MessageType::kGpadlCreated || type == MessageType::kOpenChannelResult) {
    if (word_at(offsetof(hyperv::GpadlCreatedMessage, status)) != 0) ++taken_failed_[type];
  }
}

// What is driven to its limit

absl::Status HostileVm::ConnectBus() {
  offered_.clear();
  const uint64_t delivered = taken_[MessageType::kAllOffersDelivered];
  const uint64_t versions = taken_[MessageType::kVersionResponse];
  absl::Status status = Post(Contact(0, hyperv::kVmbusSint));
  if (status.ok()) {
    status = PumpUntil([&] { return taken_[MessageType::kVersionResponse] > versions; });
  }
  if (status.ok()) status = Post(hyperv::BuildHeaderOnly(MessageType::kRequestOffers));
  if (!status.ok()) return status;
  return PumpUntil([&] { return taken_[MessageType::kAllOffersDelivered] > delivered; });
}

absl::Status HostileVm::OpenLargest(uint32_t channel_id) {
  const uint32_t gpadl_id = next_gpadl_id_++;
  const uint64_t opened = taken_[MessageType::kOpenChannelResult];
  const uint64_t failed = taken_failed_[MessageType::kOpenChannelResult];
  absl::Status status =
      PostAll(hyperv::BuildGpadl(kProfile, channel_id, gpadl_id, RingPageFrames(channel_id)));
  if (status.ok()) {
    status = Post(hyperv::BuildOpenChannel(kProfile, channel_id, gpadl_id, 0, kGuestToHostPages));
  }
  if (status.ok()) {
    status = PumpUntil([&] { return taken_[MessageType::kOpenChannelResult] > opened; });
  }
  if (!status.ok()) return status;
  if (taken_failed_[MessageType::kOpenChannelResult] == failed) return absl::OkStatus();
  return absl::InternalError("the server refused the open");
}

absl::StatusOr<size_t> HostileVm::CreateGpadls(size_t count, size_t ranges) {
  const uint64_t answered = taken_[MessageType::kGpadlCreated];
  const uint64_t failed = taken_failed_[MessageType::kGpadlCreated];
  for (size_t i = 0; i < count; ++i) {
    GuestMessage message = GpadlHeader(1, next_gpadl_id_++, ranges, 2 * ranges);
    for (size_t range = 0; range < ranges; ++range) {
      AppendWord(message, hyperv::kPageBytes);
      AppendWord(message, range);
    }
    if (absl::Status status = Post(message); !status.ok()) return status;
  }
  absl::Status status =
      PumpUntil([&] { return taken_[MessageType::kGpadlCreated] == answered + count; });
  if (!status.ok()) return status;
  return count - (taken_failed_[MessageType::kGpadlCreated] - failed);
}

absl::StatusOr<size_t> HostileVm::BeginGpadls() {
  // As many ranges as could be: the fewest pages for its words.
  constexpr size_t kWords = 0xFFFF / sizeof(uint64_t);
  const uint64_t failed = taken_failed_[MessageType::kGpadlCreated];
  for (size_t begun = 0;; ++begun) {
    const uint32_t gpadl_id = next_gpadl_id_++;
    absl::Status status = Post(GpadlHeader(1, gpadl_id, kWords / 2, kWords));
    for (size_t words = 0; words + hyperv::kGpadlBodyWordsMax < kWords && status.ok();
         words += hyperv::kGpadlBodyWordsMax) {
      status = Post(GpadlBody(gpadl_id));
    }
    if (status.ok()) status = PostsDone();
    if (!status.ok()) return status;
    if (taken_failed_[MessageType::kGpadlCreated] != failed) return begun;
  }
}

absl::StatusOr<hyperv::RingMemory> HostileVm::MapRing(uint32_t channel_id, size_t pages) const {
  std::vector<hyperv::GuestRun> runs;
  for (const uint64_t frame : RingPageFrames(channel_id)) {
    if (runs.size() == pages) break;
    runs.push_back(
        {.region = nullptr, .data = ram_->Page(frame).data(), .bytes = hyperv::kPageBytes});
  }
  return hyperv::RingMemory::FromRuns(runs);
}

absl::Status HostileVm::Register(uint32_t channel_id, uint32_t count, size_t pages) {
  absl::StatusOr<hyperv::RingMemory> memory = MapRing(channel_id, kGuestToHostPages);
  if (!memory.ok()) return memory.status();
  absl::StatusOr<hyperv::OutgoingRing> ring = hyperv::OutgoingRing::Open(*memory);
  if (!ring.ok()) return ring.status();
  for (uint32_t handle = 0; handle < count; ++handle) {
    const std::vector<std::byte> message = SetUpMessage(handle, pages);
    const absl::StatusOr<bool> room = ring->Reserve(message.size());
    if (!room.ok() || !*room) return absl::InternalError("the guest's ring is full");
    ring->CopyIn(0, message);
    ring->Commit(message.size());
  }
  [[maybe_unused]] const bool sleeps = ring->Publish();
  if (absl::Status status = FloodEvents(channel_id, 1); !status.ok()) return status;
  const hyperv::Deadline deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (memory->Load(hyperv::ControlWord::kOut, std::memory_order_acquire) != ring->in()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return absl::DeadlineExceededError("the server did not take the registrations");
    }
    if (absl::Status status = Pump(); !status.ok()) return status;
    usleep(1000);
  }
  return absl::OkStatus();
}

absl::Status HostileVm::VisitEveryInterruptSource(uint32_t channel_id) {
  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    for (uint8_t sint = 0; sint <= hyperv::kSintMax; ++sint) {
      const GuestMessage message = sint == hyperv::kVmbusSint
                                       ? hyperv::BuildModifyChannel(channel_id, vp)
                                       : Contact(vp, sint);
      if (absl::Status status = Post(message); !status.ok()) return status;
    }
  }
  return PostsDone();
}

absl::Status HostileVm::FillPosts() {
  take_messages_ = false;
  while (posts_sent_ - posts_acknowledged_ < hyperv::kLinkPostsMax) {
    // Each is refused, and the refusal is a message to the guest.
    if (absl::Status status = Post(hyperv::BuildModifyChannel(2000, 0)); !status.ok()) {
      return status;
    }
    usleep(1000);
    if (absl::Status status = Pump(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status HostileVm::TakeAnswers() {
  take_messages_ = true;
  return PostsDone();
}

absl::Status HostileVm::BeginOpen(uint32_t target_vp) {
  constexpr std::array<uint64_t, 4> kPages = {kRingsPage, kRingsPage + 1, kRingsPage + 2,
                                              kRingsPage + 3};
  const uint32_t gpadl_id = next_gpadl_id_++;
  absl::Status status = ConnectBus();
  if (status.ok()) status = PostAll(hyperv::BuildGpadl(kProfile, 1, gpadl_id, kPages));
  if (status.ok()) {
    status = Post(hyperv::BuildOpenChannel(kProfile, 1, gpadl_id, target_vp, kPages.size() / 2));
  }
  return status.ok() ? PostsDone() : status;
}

absl::Status HostileVm::OpenWithoutInterrupt(size_t count, bool same_processor) {
  withheld_processor_ = 1;
  absl::Status status;
  for (size_t i = 0; i < count && status.ok(); ++i) {
    const size_t other = same_processor ? 0 : i % (kProcessors - 1);
    status = BeginOpen(static_cast<uint32_t>(1 + other));
  }
  withheld_processor_ = 0;
  return status;
}

absl::Status HostileVm::OpenWithoutAnswers(size_t count) {
  answer_ = false;
  absl::Status status;
  for (size_t i = 0; i < count && status.ok(); ++i) status = BeginOpen(0);
  answer_ = true;
  return status;
}

}  // namespace vmbfs
