#include "hyperv/ring/explored_sides.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/ring/incoming_ring_definitions.h"
#include "hyperv/ring/outgoing_ring_definitions.h"

namespace vmbfs::hyperv {
namespace {

using ExploredOutgoingRing = BasicOutgoingRing<ExploredMemory>;
using ExploredIncomingRing = BasicIncomingRing<ExploredMemory>;

// Packets are numbered in a circle that is longer than what the ring can hold,
// so that states come back and a lost, doubled or overtaking packet shows.
uint64_t NumberBehind(uint64_t number, uint32_t data_bytes) {
  return (number + 1) % ((data_bytes - kRingUnitBytes) / kPacketBytesMin + 1);
}
constexpr size_t kPayloadBytesMax = 16;

std::byte PayloadByte(uint64_t number) { return static_cast<std::byte>(0xA0 + number); }

template <typename T>
T Checked(ExploredProcessor& processor, absl::StatusOr<T> result) {
  if (!result.ok()) {
    processor.Fail(absl::StrCat("the ring is refused: ", result.status().message()));
  }
  return *std::move(result);
}

void OpenRing(ExploredProcessor& processor, const ExploredWriterOptions& options,
              std::optional<ExploredOutgoingRing>& ring) {
  (void)options;
  ring = Checked(processor, ExploredOutgoingRing::Open(ExploredMemory(processor)));
}
void OpenRing(ExploredProcessor& processor, const ExploredWriterOptions& options,
              std::optional<PeerWriter>& ring) {
  ring.emplace(ExploredMemory(processor), options.code);
}
void OpenRing(ExploredProcessor& processor, const ExploredReaderOptions& options,
              std::optional<ExploredIncomingRing>& ring) {
  ring = Checked(processor, ExploredIncomingRing::Open(ExploredMemory(processor), options.masking));
}
void OpenRing(ExploredProcessor& processor, const ExploredReaderOptions& options,
              std::optional<PeerReader>& ring) {
  ring.emplace(ExploredMemory(processor), options.code);
}

template <typename Ring>
class Writer : public ExploredSide {
 public:
  explicit Writer(const ExploredWriterOptions& options) : options_(options) {}

  std::unique_ptr<ExploredSide> Clone() const override { return std::make_unique<Writer>(*this); }
  bool Sleeps() const override { return phase_ == RingCall::kSleep; }

  std::string Key() const override {
    std::string key = absl::StrCat(static_cast<int>(phase_), " ", number_, " ", committed_, " ",
                                   payload_bytes_.value_or(99), " ", full_);
    if (ring_) {
      absl::StrAppend(&key, " ", ring_->cursor(), " ", ring_->in(), " ", ring_->space_requested());
    }
    return key;
  }

  void Call(ExploredProcessor& processor) override {
    processor.Begin(phase_);
    switch (phase_) {
      case RingCall::kOpen:
        OpenRing(processor, options_, ring_);
        phase_ = RingCall::kReserve;
        return;
      case RingCall::kReserve:
        return Write(processor);
      case RingCall::kPublish:
        if (ring_->Publish()) processor.SignalPeer();
        committed_ = 0;
        phase_ = full_ ? RingCall::kRequestSpace : RingCall::kReserve;
        return;
      case RingCall::kRequestSpace: {
        const bool fits = Checked(processor, ring_->RequestSpace(*payload_bytes_));
        full_ = false;
        phase_ = fits ? RingCall::kReserve : RingCall::kSleep;
        return;
      }
      case RingCall::kSleep:
        processor.WaitForSignal();
        if (options_.clears_request_on_waking) ring_->ClearSpaceRequest();
        phase_ = RingCall::kReserve;
        return;
      case RingCall::kRead:
      case RingCall::kConsume:
      case RingCall::kArm:
        break;
    }
    std::abort();
  }

 private:
  void Write(ExploredProcessor& processor) {
    if (!payload_bytes_.has_value()) {
      const auto sizes = static_cast<uint32_t>(options_.payload_bytes.size());
      payload_bytes_ = options_.payload_bytes[processor.Choose(sizes)];
    }
    if (!Checked(processor, ring_->Reserve(*payload_bytes_))) {
      full_ = committed_ != 0;
      phase_ = full_ ? RingCall::kPublish : RingCall::kRequestSpace;
      return;
    }
    if (ring_->space_requested()) ring_->ClearSpaceRequest();
    std::array<std::byte, kPayloadBytesMax> payload;
    payload.fill(PayloadByte(number_));
    ring_->CopyIn(0, std::span(payload).first(*payload_bytes_));
    ring_->Commit(*payload_bytes_, number_);
    payload_bytes_.reset();
    number_ = NumberBehind(number_, processor.data_bytes());
    if (++committed_ == options_.packets_a_publish) phase_ = RingCall::kPublish;
  }

  ExploredWriterOptions options_;
  std::optional<Ring> ring_;
  RingCall phase_ = RingCall::kOpen;
  uint64_t number_ = 0;                    // of the next packet
  std::optional<uint32_t> payload_bytes_;  // of the next packet, once chosen
  uint32_t committed_ = 0;
  bool full_ = false;  // publish what there is, then wait
};

template <typename Ring>
class Reader : public ExploredSide {
 public:
  explicit Reader(const ExploredReaderOptions& options) : options_(options) {}

  std::unique_ptr<ExploredSide> Clone() const override { return std::make_unique<Reader>(*this); }
  bool Sleeps() const override { return phase_ == RingCall::kSleep; }

  std::string Key() const override {
    std::string key =
        absl::StrCat(static_cast<int>(phase_), " ", number_, " ", read_, " ", drained_);
    if (ring_) {
      absl::StrAppend(&key, " ", ring_->cursor(), " ", ring_->out(), " ", ring_->in(), " ",
                      ring_->masked());
    }
    return key;
  }

  void Call(ExploredProcessor& processor) override {
    processor.Begin(phase_);
    switch (phase_) {
      case RingCall::kOpen:
        OpenRing(processor, options_, ring_);
        phase_ = RingCall::kRead;
        return;
      case RingCall::kRead:
        return Read(processor);
      case RingCall::kConsume:
        if (ring_->Consume()) processor.SignalPeer();
        read_ = 0;
        phase_ = drained_ ? RingCall::kArm : RingCall::kRead;
        return;
      case RingCall::kArm: {
        const bool more = Checked(processor, ring_->Arm());
        drained_ = false;
        phase_ = more ? RingCall::kRead : RingCall::kSleep;
        return;
      }
      case RingCall::kSleep:
        processor.WaitForSignal();
        phase_ = RingCall::kRead;
        return;
      case RingCall::kReserve:
      case RingCall::kPublish:
      case RingCall::kRequestSpace:
        break;
    }
    std::abort();
  }

 private:
  void Read(ExploredProcessor& processor) {
    const std::optional<PacketView> packet = Checked(processor, ring_->Peek());
    if (!packet.has_value()) {
      drained_ = read_ != 0;
      phase_ = drained_ ? RingCall::kConsume : RingCall::kArm;
      return;
    }
    ring_->Mask();
    std::array<std::byte, kPayloadBytesMax> buffer;
    if (packet->payload_bytes > buffer.size()) processor.Fail("a packet has the wrong size");
    const auto payload = std::span(buffer).first(packet->payload_bytes);
    ring_->CopyPayload(*packet, 0, payload);
    if (packet->transaction_id != number_ ||
        !std::all_of(payload.begin(), payload.end(),
                     [this](std::byte b) { return b == PayloadByte(number_); })) {
      processor.Fail(absl::StrCat("packet ", number_, " is due; another one was read"));
    }
    ring_->Advance(*packet);
    number_ = NumberBehind(number_, processor.data_bytes());
    if (++read_ == options_.packets_a_consume) phase_ = RingCall::kConsume;
  }

  ExploredReaderOptions options_;
  std::optional<Ring> ring_;
  RingCall phase_ = RingCall::kOpen;
  uint64_t number_ = 0;  // of the packet that is due
  uint32_t read_ = 0;    // and not consumed
  bool drained_ = false;
};

}  // namespace

std::unique_ptr<ExploredSide> MakeExploredWriter(const ExploredWriterOptions& options) {
  if (options.code == RingCode::kOurs) {
    return std::make_unique<Writer<ExploredOutgoingRing>>(options);
  }
  return std::make_unique<Writer<PeerWriter>>(options);
}

std::unique_ptr<ExploredSide> MakeExploredReader(const ExploredReaderOptions& options) {
  if (options.code == RingCode::kOurs) {
    return std::make_unique<Reader<ExploredIncomingRing>>(options);
  }
  return std::make_unique<Reader<PeerReader>>(options);
}

}  // namespace vmbfs::hyperv
