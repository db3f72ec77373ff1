// A ring's reader and writer against a model: what each call returns, every
// control word and every byte written, in any order of calls and any layout.
//
// Input: a byte of options; then calls. In hostile mode some calls write over
// control words, descriptors and payload, from the peer's side of either ring
// end. The model follows: it looks at the same memory with its own eyes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/private_ring_pages.h"
#include "hyperv/ring/ring_fuzz_peer.h"
#include "hyperv/ring/ring_fuzz_view.h"

namespace vmbfs::hyperv {
namespace {

// shared/specs/vmbus.md 4.1 to 4.4, written once more.
class RingFuzzer {
 public:
  RingFuzzer(FuzzInput& input, size_t data_pages, PageLayout layout, InterruptMasking masking,
             bool hostile)
      : input_(input),
        hostile_(hostile),
        masking_(masking),
        pages_(data_pages, layout),
        view_(pages_.Map()),
        size_(view_.data_bytes()) {
    OpenWriter();
    OpenReader();
  }

  void Run() {
    for (int step = 0; step < kStepsMax && !input_.empty() && reader_ && writer_; ++step) Step();
    if (!hostile_) Drain();
    Require(pages_.OutsideIsUntouched(), "nothing outside the ring is written");
  }

 private:
  static constexpr int kStepsMax = 512;
  struct Packet {
    uint64_t transaction_id;
    std::vector<std::byte> payload;
  };

  void Step() {
    switch (input_.Below(hostile_ ? 20 : 14)) {
      case 0:
      case 1:
      case 2:
        return Write();
      case 3:
      case 4:
        return Publish();
      case 5:
      case 6:
        return Read();
      case 7:
        return Peek();
      case 8:
        return Consume();
      case 9:
        return Arm();
      case 10:
        return reader_->Mask();
      case 11:
        return RequestSpace();
      case 12:
        return writer_->ClearSpaceRequest();
      case 13:
        return Reopen();
      case 14:
      case 15:
        return OverwriteWord(input_, view_, read_at_);
      case 16:
      case 17:
        return OverwriteDescriptor(input_, view_, read_at_);
      default:
        return OverwriteData(input_, view_);
    }
  }

  // --- the writer ---

  void OpenWriter() {
    const bool legal =
        view_.IsIndex(view_.Word(ControlWord::kIn)) && view_.IsIndex(view_.Word(ControlWord::kOut));
    auto writer = OutgoingRing::Open(pages_.Map());
    Require(writer.ok() == legal, "a writer opens on legal indices only");
    writer_.reset();
    if (!legal) return;
    writer_.emplace(*std::move(writer));
    in_ = write_at_ = view_.Word(ControlWord::kIn);
    Require(view_.Word(ControlWord::kPendingSendSize) == 0, "a new writer waits for nothing");
    Require(view_.Word(ControlWord::kFeatureBits) == 1, "and honours pending send sizes");
    committed_.clear();
  }

  size_t TakePayloadBytes() {
    const uint32_t kind = input_.Below(8);
    const size_t bytes_max = writer_->payload_bytes_max();
    if (kind == 0) return bytes_max;
    return (kind < 5 ? input_.U8() : input_.U16()) % (bytes_max + 1);
  }

  void Write() {
    const size_t reserved_bytes = TakePayloadBytes();
    const auto reserved = writer_->Reserve(reserved_bytes);
    const uint32_t out = view_.Word(ControlWord::kOut);
    if (!view_.IsIndex(out)) {
      Require(absl::IsInvalidArgument(reserved.status()), "a broken `out` is refused");
      return;
    }
    Require(reserved.ok() &&
                *reserved == (RingView::RingBytes(reserved_bytes) <= view_.Free(write_at_, out)),
            "room is where the indices leave it");
    if (!*reserved) return;
    const size_t bytes = input_.OneIn(4) ? reserved_bytes / 2 : reserved_bytes;
    Packet packet{input_.U8(), std::vector<std::byte>(bytes, static_cast<std::byte>(next_fill_))};
    for (size_t i = 0; i < bytes; i += 61)
      packet.payload[i] = static_cast<std::byte>(next_fill_ + i);
    ++next_fill_;
    Fill(packet.payload);
    writer_->Commit(bytes, packet.transaction_id);
    CheckCommitted(packet);
    write_at_ = view_.Wrap(write_at_ + RingView::RingBytes(bytes));
    Require(writer_->cursor() == write_at_, "the next packet goes behind this one");
    Require(view_.Word(ControlWord::kIn) == shown_in_ || hostile_,
            "nothing is visible before Publish");
    committed_.push_back(std::move(packet));
  }

  void Fill(std::span<const std::byte> payload) {
    if (input_.OneIn(2)) {
      const size_t half = payload.size() / 2;
      writer_->CopyIn(half, payload.subspan(half));
      writer_->CopyIn(0, payload.first(half));
      return;
    }
    std::vector<iovec> pieces(RingMemory::PiecesMax(payload.size()));
    pieces.resize(writer_->Pieces(0, payload.size(), pieces));
    for (const iovec& piece : pieces) {
      Require(piece.iov_len <= payload.size(), "pieces have no more bytes than the payload");
      CopyToGuest(static_cast<std::byte*>(piece.iov_base), payload.data(), piece.iov_len);
      payload = payload.subspan(piece.iov_len);
    }
    Require(payload.empty(), "pieces cover the payload");
  }

  void CheckCommitted(const Packet& packet) {
    const size_t padded = (packet.payload.size() + 7) / 8 * 8;
    const std::vector<std::byte> bytes =
        view_.Data(write_at_, RingView::RingBytes(packet.payload.size()));
    const std::span<const std::byte> all = bytes;
    const uint64_t units = (16 + padded) / 8;
    Require(NumberOf(all.first(8)) == (6 | 2 << 16 | units << 32), "descriptor");
    Require(NumberOf(all.subspan(8, 8)) == packet.transaction_id, "transaction id");
    Require(std::ranges::equal(all.subspan(16, packet.payload.size()), packet.payload), "payload");
    Require(NumberOf(all.last(8)) == uint64_t{write_at_} << 32, "trailer");
    const auto padding = all.subspan(16 + packet.payload.size(), padded - packet.payload.size());
    Require(std::ranges::all_of(padding, [](std::byte each) { return each == std::byte{0}; }),
            "padding is zero");
  }

  void Publish() {
    const bool expected = write_at_ != in_ && view_.Word(ControlWord::kInterruptMask) == 0 &&
                          view_.Word(ControlWord::kOut) == in_;
    const bool moved = write_at_ != in_;
    Require(writer_->Publish() == expected, "signal on empty to non-empty, unless masked");
    in_ = write_at_;
    Require(writer_->in() == in_, "all committed packets are published");
    if (moved) {
      shown_in_ = in_;
      Require(view_.Word(ControlWord::kIn) == in_, "the peer sees them");
    }
    for (Packet& each : committed_) packets_.push_back(std::move(each));
    committed_.clear();
  }

  void RequestSpace() {
    Publish();
    const size_t bytes = TakePayloadBytes();
    const auto fits = writer_->RequestSpace(bytes);
    const uint32_t pending = view_.Word(ControlWord::kPendingSendSize);
    Require(pending >= RingView::RingBytes(bytes) && pending <= size_ - 8,
            "what is asked for is possible");
    const uint32_t out = view_.Word(ControlWord::kOut);
    Require(fits.ok() == view_.IsIndex(out), "a broken `out` is refused");
    if (fits.ok()) {
      Require(*fits == (RingView::RingBytes(bytes) <= view_.Free(in_, out)), "it looks once more");
    }
    Require(writer_->space_requested(), "the wait is remembered");
  }

  // --- the reader ---

  void OpenReader() {
    const bool legal =
        view_.IsIndex(view_.Word(ControlWord::kIn)) && view_.IsIndex(view_.Word(ControlWord::kOut));
    auto reader = IncomingRing::Open(pages_.Map(), masking_);
    Require(reader.ok() == legal, "a reader opens on legal indices only");
    reader_.reset();
    if (!legal) return;
    reader_.emplace(*std::move(reader));
    seen_in_ = view_.Word(ControlWord::kIn);
    read_at_ = out_ = view_.Word(ControlWord::kOut);
    packets_read_ = 0;
    const uint32_t mask = masking_ == InterruptMasking::kWhileBusy ? 1 : 0;
    Require(view_.Word(ControlWord::kInterruptMask) == mask, "a new reader is awake");
  }

  // What the next packet must be; an error where the bytes there are none.
  absl::StatusOr<std::optional<PacketView>> ExpectedPacket() {
    if (read_at_ == seen_in_) {
      const uint32_t in = view_.Word(ControlWord::kIn);
      if (!view_.IsIndex(in)) return absl::InvalidArgumentError("");
      seen_in_ = in;
      if (in == read_at_) return std::nullopt;
    }
    return view_.PacketAt(read_at_, seen_in_);
  }

  static void CheckView(const PacketView& view, const PacketView& expected) {
    Require(view.type == expected.type && view.transaction_id == expected.transaction_id &&
                view.completion_requested == expected.completion_requested &&
                view.payload_offset_bytes == expected.payload_offset_bytes &&
                view.payload_bytes == expected.payload_bytes &&
                view.ring_bytes == expected.ring_bytes,
            "the packet is what stands in the ring");
  }

  void Peek() {
    const auto expected = ExpectedPacket();
    const auto packet = reader_->Peek();
    Require(packet.ok() == expected.ok(), "broken packets and indices are refused, others not");
    Require(packet.ok() || absl::IsInvalidArgument(packet.status()), "as the peer's fault");
    if (!packet.ok()) return;
    Require(packet->has_value() == expected->has_value(), "a packet is there when `in` says so");
    if (packet->has_value()) CheckView(**packet, **expected);
  }

  void Read() {
    const auto expected = ExpectedPacket();
    std::vector<std::byte> buffer(input_.OneIn(8) ? input_.U8() : size_);
    const auto packet = reader_->Read(buffer);
    if (!expected.ok()) {
      Require(absl::IsInvalidArgument(packet.status()), "broken packets and indices are refused");
    } else if (!expected->has_value()) {
      Require(packet.ok() && !packet->has_value(), "an empty ring has no packet");
    } else if ((*expected)->payload_bytes > buffer.size()) {
      Require(absl::IsResourceExhausted(packet.status()), "a small buffer is refused");
    } else {
      Require(packet.ok() && packet->has_value(), "a whole packet is read");
      CheckRead(**packet, **expected);
    }
    Require(reader_->cursor() == read_at_ && reader_->out() == out_, "and nothing else moves");
  }

  void CheckRead(const IncomingRing::Packet& packet, const PacketView& expected) {
    CheckView(packet.view, expected);
    const uint32_t payload_at = view_.Wrap(read_at_ + expected.payload_offset_bytes);
    Require(std::ranges::equal(packet.payload, view_.Data(payload_at, expected.payload_bytes)),
            "the payload is what stands in the ring");
    read_at_ = view_.Wrap(read_at_ + expected.ring_bytes);
    if (hostile_) return;
    Require(packets_read_ < packets_.size(), "only what was published is read");
    const Packet& written = packets_[packets_read_++];
    Require(packet.view.transaction_id == written.transaction_id &&
                packet.payload.size() == (written.payload.size() + 7) / 8 * 8 &&
                std::ranges::equal(packet.payload.first(written.payload.size()), written.payload),
            "in the order and form it was written");
  }

  void Consume() {
    const uint32_t pending = view_.Word(ControlWord::kPendingSendSize) / 8 * 8;
    const uint32_t in = view_.Word(ControlWord::kIn);
    const bool moved = read_at_ != out_;
    const bool signal = reader_->Consume();
    if (!moved || pending == 0) {
      Require(!signal, "nobody waits for what did not come");
    } else if (view_.IsIndex(in)) {
      const bool crossed = view_.Free(in, out_) < pending && view_.Free(in, read_at_) >= pending;
      Require(signal == crossed, "signal when the free space crosses what is waited for");
    }
    out_ = read_at_;
    Require(reader_->out() == out_, "all that was read is given back");
    if (moved) Require(view_.Word(ControlWord::kOut) == out_, "the peer sees it");
    while (packets_read_ > 0) {
      packets_.pop_front();
      --packets_read_;
    }
  }

  void Arm() {
    Consume();
    const uint32_t in = view_.Word(ControlWord::kIn);
    const auto more = reader_->Arm();
    Require(view_.Word(ControlWord::kInterruptMask) == 0 || masking_ == InterruptMasking::kNever,
            "a reader that sleeps is to be woken");
    Require(more.ok() == view_.IsIndex(in), "a broken `in` is refused");
    if (!more.ok()) return;
    seen_in_ = in;
    Require(*more == (in != read_at_), "it looks once more");
  }

  // As after a restart: what was not published or consumed is done again.
  void Reopen() {
    if (input_.OneIn(2)) {
      OpenReader();
    } else {
      OpenWriter();
    }
  }

  void Drain() {
    Publish();
    while (packets_read_ < packets_.size()) {
      const size_t before = packets_read_;
      std::vector<std::byte> buffer(size_);
      const auto expected = ExpectedPacket();
      const auto packet = reader_->Read(buffer);
      Require(expected.ok() && expected->has_value() && packet.ok() && packet->has_value(),
              "all that was published can be read");
      CheckRead(**packet, **expected);
      Require(packets_read_ == before + 1, "one by one");
    }
    Consume();
    const auto end = reader_->Peek();
    Require(end.ok() && !end->has_value(), "and nothing more");
  }

  FuzzInput& input_;
  const bool hostile_;
  const InterruptMasking masking_;
  PrivateRingPages pages_;
  RingView view_;
  const uint32_t size_;
  std::optional<OutgoingRing> writer_;
  std::optional<IncomingRing> reader_;
  // The model: the writer's, the reader's, and what lies between them.
  uint32_t in_ = 0, write_at_ = 0, shown_in_ = 0;
  uint32_t seen_in_ = 0, read_at_ = 0, out_ = 0;
  std::vector<Packet> committed_;
  std::deque<Packet> packets_;  // published and not consumed
  size_t packets_read_ = 0;     // of them
  unsigned next_fill_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t options = input.U8();
  RingFuzzer(input, 1 + (options >> 4) % 3u, PageLayoutOf((options & 1) != 0, (options & 8) != 0),
             (options & 2) != 0 ? InterruptMasking::kNever : InterruptMasking::kWhileBusy,
             /*hostile=*/(options & 4) != 0)
      .Run();
  return 0;
}

}  // namespace vmbfs::hyperv
