#include "tests/conformance/raw_guest.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::conformance {
namespace {

constexpr size_t kSlotBytes = 256;
constexpr size_t kFlagBytesPerSint = 256;
constexpr std::byte kPendingBit{1};
constexpr uint32_t kSints = 16;
constexpr uint32_t kUnknownChannel = 2040;
constexpr Milliseconds kNap{10};
constexpr Milliseconds kLook{1};

// The interface of vmbfs, and its two instances (section 6.1).
const Bytes kVmbfsInterface = FromHex("c3c176c376d2d24890a9c04748072c60");
const Bytes kImcInstance = FromHex("d1e7e5c448d7fc4a979d683167910a55");
const Bytes kBootInstance = FromHex("df9b3cc6a55f0842b03f6b458b365592");

std::atomic_ref<uint32_t> SlotType(std::span<std::byte> slot) {
  return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(slot.data()));
}

}  // namespace

RawGuest::RawGuest(const KitOptions& options, Verdict& verdict, uint64_t ram_bytes)
    : options_(options), verdict_(verdict) {
  auto ram = hyperv::GuestRam::Create(ram_bytes);
  if (!ram.ok()) std::abort();  // no memory on our own side
  ram_ = *std::move(ram);
  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    const std::vector<uint64_t> pages = Pages(2);
    processors_.push_back({pages[0] << 12, pages[1] << 12});
  }
  auto vmm = LinkVmm::Connect(options.socket_path, *ram_, processors_, deadline());
  if (verdict_.Expect(vmm.ok(), vmm.status().message())) vmm_ = *std::move(vmm);
}

std::span<std::byte> RawGuest::ram() const { return ram_->bytes(); }

// --- messages ---------------------------------------------------------------

void RawGuest::Post(ByteView message, uint32_t connection) {
  const Deadline until = deadline();
  while (ok() && !vmm_->Post(connection, message)) {
    if (!Wait(until)) verdict_.Fail("posts are not acknowledged");
  }
}

void RawGuest::Post(const std::vector<Bytes>& messages) {
  for (const Bytes& message : messages) Post(message);
}

void RawGuest::Settle() {
  const Deadline until = deadline();
  while (ok() && vmm_->posts_on_their_way() > 0) {
    if (!Wait(until)) verdict_.Fail("posts are not acknowledged");
  }
}

std::span<std::byte> RawGuest::SlotBytes(uint32_t vp, uint32_t sint) const {
  return ram_->bytes().subspan(processors_[vp].message_page_gpa + sint * kSlotBytes, kSlotBytes);
}

Bytes RawGuest::Slot(uint32_t vp, uint32_t sint) const {
  const std::span<std::byte> slot = SlotBytes(vp, sint);
  return {slot.begin(), slot.end()};
}

void RawGuest::TakeMessages() {
  if (slots_held_) return;
  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    for (uint32_t sint = 0; sint < kSints; ++sint) TakeMessage(vp, sint);
  }
}

void RawGuest::TakeMessage(uint32_t vp, uint32_t sint) {
  const std::span<std::byte> slot = SlotBytes(vp, sint);
  const uint32_t type = SlotType(slot).load(std::memory_order_acquire);
  if (type == 0) return;
  const auto length = std::to_integer<size_t>(slot[4]);
  HostMessage message{.vp = vp, .sint = sint};
  message.bytes.assign(slot.begin() + 16, slot.begin() + 16 + std::min(length, kMessageBytes));
  const Bytes head(slot.begin(), slot.begin() + 16);
  SlotType(slot).exchange(0);  // a full fence: the pending bit is read behind it
  const std::byte flags = std::atomic_ref<std::byte>(slot[5]).load();
  message.pending = (flags & kPendingBit) == kPendingBit;
  if (message.pending) vmm_->EndOfMessage(vp, sint);

  verdict_.Expect(type == 1, "slot type ", type, "; VMBus messages have 1");
  verdict_.Expect(IsHostMessageSize(message.type(), length), "message of type ", message.type(),
                  " has ", length, " bytes");
  verdict_.Expect((flags & ~kPendingBit) == std::byte{} && AllZero(ByteView(head).subspan(6)),
                  "reserved bytes of the slot are ", ToHex(head));
  messages_.push_back(std::move(message));
}

std::optional<HostMessage> RawGuest::Next(Deadline deadline) {
  // Looked at once more after the deadline: what stands still may be this program.
  for (bool in_time = true; ok(); in_time = Wait(deadline)) {
    TakeMessages();
    if (!messages_.empty()) {
      HostMessage message = std::move(messages_.front());
      messages_.pop_front();
      return message;
    }
    if (!in_time) break;
  }
  return std::nullopt;
}

HostMessage RawGuest::Await(uint32_t type) {
  if (!ok()) return {};
  std::optional<HostMessage> message = Next(deadline());
  if (!verdict_.Expect(message.has_value(), "no message came; type ", type, " was due")) return {};
  verdict_.Expect(message->type() == type, "message of type ", message->type(), " where type ",
                  type, " was due");
  return *std::move(message);
}

void RawGuest::ExpectSilence(absl::string_view after, Milliseconds duration) {
  Settle();
  if (!ok()) return;
  const auto message = Next(std::chrono::steady_clock::now() + duration);
  if (message) verdict_.Fail(absl::StrCat("message of type ", message->type(), " after ", after));
}

void RawGuest::ExpectDropped(ByteView message, absl::string_view what) {
  Post(message);
  ExpectSilence(what);
}

void RawGuest::ExpectAlive() {
  const uint32_t status =
      CreateGpadl({.channel_id = kUnknownChannel, .gpadl_id = NewGpadlId(), .words = {4096, 1}});
  verdict_.Expect(status != 0, "a GPADL for a channel that nobody offered was accepted");
}

// --- connection -------------------------------------------------------------

HostMessage RawGuest::SendContact(const ContactFields& fields, uint32_t connection) {
  Post(Contact(fields), connection);
  HostMessage response = Await(kVersionResponse);
  features_ = response.field(16);
  return response;
}

void RawGuest::Connect(const ContactFields& fields) {
  const HostMessage response = SendContact(fields);
  verdict_.Expect(Get(response.bytes, 8, 2) == 1, "contact of version ", absl::Hex(fields.version),
                  " was refused: ", ToHex(response.bytes));
  CollectOffers();
}

void RawGuest::CollectOffers() {
  offers_.clear();
  Post(Message(kRequestOffers));
  while (ok()) {
    std::optional<HostMessage> message = Next(deadline());
    if (!verdict_.Expect(message.has_value(), "AllOffersDelivered did not come")) return;
    if (message->type() == kAllOffersDelivered) return;
    verdict_.Expect(message->type() == kOfferChannel, "message of type ", message->type(),
                    " among the offers");
    verdict_.Expect(offers_.size() < kOffersMax, "more than ", kOffersMax, " offers");
    offers_.emplace_back(std::move(message->bytes));
  }
}

void RawGuest::Unload() {
  Post(Message(kUnload));
  Await(kUnloadComplete);
}

void RawGuest::ResetVm() {
  if (!ok()) return;
  absl::Status reset = vmm_->Reset(deadline());
  messages_.clear();
  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    for (const uint64_t gpa :
         {processors_[vp].message_page_gpa, processors_[vp].event_flags_page_gpa}) {
      std::memset(ram_->bytes().data() + gpa, 0, hyperv::kPageBytes);
    }
  }
  if (reset.ok()) reset = vmm_->EnableSynics();
  verdict_.Expect(reset.ok(), "reset: ", reset.message());
}

const Offer* RawGuest::FindOffer(ByteView instance_id) const {
  const auto found = std::find_if(offers_.begin(), offers_.end(), [&](const Offer& each) {
    return std::ranges::equal(each.interface_id(), kVmbfsInterface) &&
           std::ranges::equal(each.instance_id(), instance_id);
  });
  return found == offers_.end() ? nullptr : &*found;
}

Offer RawGuest::Imc() {
  const Offer* const offer = FindOffer(kImcInstance);
  if (!verdict_.Expect(offer != nullptr, "the IMC device is not offered")) return Offer({});
  return *offer;
}

std::optional<Offer> RawGuest::Boot() const {
  const Offer* const offer = FindOffer(kBootInstance);
  return offer == nullptr ? std::nullopt : std::optional(*offer);
}

// --- GPADLs and channels ----------------------------------------------------

std::vector<uint64_t> RawGuest::Pages(size_t count, hyperv::RamLayout layout) {
  auto pages = ram_->Allocate(count, layout);
  if (!pages.ok()) std::abort();  // a statement asks for more than it created
  return *std::move(pages);
}

uint32_t RawGuest::CreateGpadl(const GpadlFields& fields) {
  Post(Gpadl(fields));
  const HostMessage created = Await(kGpadlCreated);
  verdict_.Expect(created.field(8) == fields.channel_id && created.field(12) == fields.gpadl_id,
                  "GpadlCreated does not echo its ids: ", ToHex(created.bytes));
  return created.field(16);
}

void RawGuest::CreateGoodGpadl(const GpadlFields& fields) {
  const uint32_t status = CreateGpadl(fields);
  verdict_.Expect(status == 0, "GPADL of ", fields.words.size(), " words: status ",
                  absl::Hex(status));
}

void RawGuest::TearDownGpadl(uint32_t channel_id, uint32_t gpadl_id) {
  Post(MessageWith(kGpadlTeardown, {channel_id, gpadl_id}));
  const HostMessage torndown = Await(kGpadlTorndown);
  verdict_.Expect(torndown.field(8) == gpadl_id, "Torndown of GPADL ", torndown.field(8),
                  " in place of ", gpadl_id);
}

uint32_t RawGuest::OpenChannel(const OpenFields& fields) {
  Post(Open(fields));
  const HostMessage result = Await(kOpenResult);
  verdict_.Expect(result.field(8) == fields.channel_id && result.field(12) == fields.open_id,
                  "OpenResult does not echo channel and open id: ", ToHex(result.bytes));
  return result.field(16);
}

// --- signals ----------------------------------------------------------------

void RawGuest::Signal(uint32_t connection) {
  if (ok()) vmm_->Signal(connection);
}

void RawGuest::SignalByFrame(uint32_t connection) {
  if (ok()) vmm_->SignalByFrame(connection);
}

std::span<std::byte> RawGuest::FlagByte(uint32_t vp, uint32_t flag) const {
  return ram_->bytes().subspan(
      processors_[vp].event_flags_page_gpa + kVmbusSint * kFlagBytesPerSint + flag / 8, 1);
}

bool RawGuest::TakeFlag(uint32_t vp, uint32_t flag) {
  if (flag / 8 >= kFlagBytesPerSint) return false;
  const auto bit = static_cast<uint8_t>(1U << flag % 8);
  auto* const byte = reinterpret_cast<uint8_t*>(FlagByte(vp, flag).data());
  return (std::atomic_ref(*byte).fetch_and(static_cast<uint8_t>(~bit)) & bit) != 0;
}

bool RawGuest::FlagIsSet(uint32_t vp, uint32_t flag) const {
  if (flag / 8 >= kFlagBytesPerSint) return false;
  return (std::to_integer<uint32_t>(FlagByte(vp, flag)[0]) >> flag % 8 & 1) != 0;
}

bool RawGuest::AwaitFlag(uint32_t vp, uint32_t flag, Deadline deadline) {
  while (ok()) {
    if (TakeFlag(vp, flag)) return true;
    if (!Wait(deadline)) break;
  }
  return TakeFlag(vp, flag);
}

bool RawGuest::AnyFlagSet() const {
  return std::any_of(processors_.begin(), processors_.end(), [&](const SynicPages& each) {
    return !AllZero(ram_->bytes().subspan(each.event_flags_page_gpa, hyperv::kPageBytes));
  });
}

uint64_t RawGuest::Interrupts(uint32_t vp) const {
  return vmm_ == nullptr ? 0 : vmm_->interrupts(vp, kVmbusSint);
}

std::optional<pid_t> RawGuest::server_process() const {
  return vmm_ == nullptr ? std::nullopt : vmm_->server_process();
}

bool RawGuest::Wait(Deadline deadline) {
  if (!ok()) return false;
  const absl::Status waited = vmm_->Wait(deadline);
  if (!waited.ok() && !absl::IsDeadlineExceeded(waited)) verdict_.Fail(waited.message());
  TakeMessages();
  return waited.ok();
}

bool RawGuest::Until(const std::function<bool()>& condition) {
  const Deadline until = deadline();
  while (ok() && !condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    Wait(std::chrono::steady_clock::now() + kLook);
  }
  return ok();
}

void RawGuest::Idle(Milliseconds duration) {
  const Deadline until = std::chrono::steady_clock::now() + duration;
  while (ok() && std::chrono::steady_clock::now() < until) {
    Wait(std::min(until, std::chrono::steady_clock::now() + kNap));
  }
}

}  // namespace vmbfs::conformance
