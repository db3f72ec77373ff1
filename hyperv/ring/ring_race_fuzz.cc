// A ring's reader and writer while another thread rewrites indices, descriptors
// and payload: what they accept must lie within the ring whatever they meet.
//
// Input: a byte of options; a script for the other thread, which repeats it until
// the calls are done; then calls. What a run meets depends on the threads, so an
// input that found something is run often (-runs=10000).

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/private_ring_pages.h"

namespace vmbfs::hyperv {
namespace {

constexpr int kCallsMax = 256;

// One thing the peer rewrites.
struct Scribble {
  std::optional<ControlWord> word;  // else bytes of the data area
  uint32_t at = 0;
  uint32_t value = 0;
  std::array<std::byte, 24> bytes{};
};

std::vector<Scribble> TakeScript(FuzzInput& input, uint32_t size) {
  static constexpr std::array kWords = {ControlWord::kIn, ControlWord::kOut,
                                        ControlWord::kInterruptMask, ControlWord::kPendingSendSize,
                                        ControlWord::kFeatureBits};
  std::vector<Scribble> script(1 + input.Below(15));
  for (Scribble& each : script) {
    const uint32_t kind = input.Below(8);
    if (kind < kWords.size()) {
      each.word = kWords[kind];
      each.value = input.OneIn(4) ? input.U32() : input.U16() * 8u % size;
    } else {
      each.at = input.U16() * 8u % size;
      const auto bytes = input.Bytes(each.bytes.size());
      std::copy(bytes.begin(), bytes.end(), each.bytes.begin());
    }
  }
  return script;
}

// The other side of both rings, on a thread of its own.
class Peer {
 public:
  struct Part {
    RingMemory memory;
    std::vector<Scribble> script;
  };

  explicit Peer(std::array<Part, 2> parts)
      : parts_(std::move(parts)), thread_([this] {
          while (!stop_.load(std::memory_order_relaxed)) {
            for (Part& part : parts_) {
              for (const Scribble& each : part.script) Write(part.memory, each);
            }
            rounds_.fetch_add(1, std::memory_order_relaxed);
          }
        }) {
    while (rounds_.load(std::memory_order_relaxed) == 0) std::this_thread::yield();
  }
  ~Peer() {
    stop_ = true;
    thread_.join();
  }

 private:
  static void Write(RingMemory& memory, const Scribble& scribble) {
    if (scribble.word) {
      memory.Store(*scribble.word, scribble.value, std::memory_order_relaxed);
    } else {
      memory.CopyIn(scribble.at, scribble.bytes);
    }
  }

  std::array<Part, 2> parts_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> rounds_ = 0;
  std::thread thread_;
};

void CheckStatus(const absl::Status& status) {
  Require(status.ok() || absl::IsInvalidArgument(status), "an error is the peer's fault");
}

void CheckPosition(uint32_t offset, uint32_t size) {
  Require(offset < size && offset % 8 == 0, "a position is an index of the ring");
}

class RaceFuzzer {
 public:
  RaceFuzzer(FuzzInput& input, const PrivateRingPages& incoming, const PrivateRingPages& outgoing)
      : input_(input),
        incoming_(incoming),
        reader_(IncomingRing::Open(incoming.Map()).value()),
        writer_(OutgoingRing::Open(outgoing.Map()).value()),
        size_(reader_.data_bytes()),
        buffer_(size_) {}

  void Run() {
    for (int call = 0; call < kCallsMax && !input_.empty(); ++call) {
      Call();
      CheckPosition(reader_.cursor(), size_);
      CheckPosition(reader_.out(), size_);
      CheckPosition(writer_.cursor(), size_);
      CheckPosition(writer_.in(), size_);
    }
  }

 private:
  void Call() {
    switch (input_.Below(8)) {
      case 0:
        return Write();
      case 1:
        static_cast<void>(writer_.Publish());
        return;
      case 2:
        static_cast<void>(writer_.Publish());
        CheckStatus(writer_.RequestSpace(TakePayloadBytes()).status());
        return;
      case 3:
        static_cast<void>(reader_.Consume());
        return;
      case 4:
        static_cast<void>(reader_.Consume());
        CheckStatus(reader_.Arm().status());
        return;
      case 5:
        reader_.Mask();
        return Reopen();
      default:
        // What is broken now may be whole a moment later.
        for (int i = 0; i < kReadsMax; ++i) Read();
    }
  }

  // Where the peer's indices lead, as after a restart.
  void Reopen() {
    auto reader = IncomingRing::Open(incoming_.Map());
    CheckStatus(reader.status());
    if (reader.ok()) reader_ = *std::move(reader);
  }

  size_t TakePayloadBytes() { return input_.U16() % (writer_.payload_bytes_max() + 1); }

  void Read() {
    const uint32_t before = reader_.cursor();
    const auto packet = reader_.Peek();
    CheckStatus(packet.status());
    Require(reader_.cursor() == before, "a look moves nothing");
    if (!packet.ok() || !packet->has_value()) return;
    const PacketView& view = **packet;
    // At most all but the eight bytes that always stay free.
    Require(view.ring_bytes >= 24 && view.ring_bytes <= size_ - 8 && view.ring_bytes % 8 == 0,
            "a packet lies within the ring");
    Require(view.payload_offset_bytes >= 16 &&
                view.payload_offset_bytes + view.payload_bytes + 8 == view.ring_bytes,
            "its payload lies within it");
    if (view.type == PacketType::kTransferPages || view.type == PacketType::kGpaDirect) {
      Require(view.payload_offset_bytes >= 24, "behind the extra header");
    }
    reader_.CopyPayload(view, 0, std::span(buffer_).first(view.payload_bytes));
    reader_.Advance(view);
    Require(reader_.cursor() == (before + view.ring_bytes) % size_, "the next one is behind it");
  }

  void Write() {
    const size_t bytes = TakePayloadBytes();
    const auto reserved = writer_.Reserve(bytes);
    CheckStatus(reserved.status());
    if (!reserved.ok() || !*reserved) return;
    const uint32_t before = writer_.cursor();
    writer_.CopyIn(0, std::span(buffer_).first(bytes));
    writer_.Commit(bytes);
    Require(writer_.cursor() == (before + 16 + (bytes + 7) / 8 * 8 + 8) % size_,
            "a packet takes its size whatever the peer does");
  }

  static constexpr int kReadsMax = 8;

  FuzzInput& input_;
  const PrivateRingPages& incoming_;
  IncomingRing reader_;
  OutgoingRing writer_;
  const uint32_t size_;
  std::vector<std::byte> buffer_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t options = input.U8();
  const PageLayout layout = PageLayoutOf((options & 1) != 0, (options & 8) != 0);
  const PrivateRingPages incoming(1 + (options >> 4) % 2u, layout);
  const PrivateRingPages outgoing(1 + (options >> 4) % 2u, layout);
  RaceFuzzer fuzzer(input, incoming, outgoing);
  {
    const uint32_t ring_bytes = incoming.Map().data_bytes();
    std::array<std::vector<Scribble>, 2> scripts = {TakeScript(input, ring_bytes),
                                                    TakeScript(input, ring_bytes)};
    const Peer peer({Peer::Part{incoming.Map(), std::move(scripts[0])},
                     Peer::Part{outgoing.Map(), std::move(scripts[1])}});
    fuzzer.Run();
  }
  Require(incoming.OutsideIsUntouched() && outgoing.OutsideIsUntouched(),
          "nothing outside the rings is written");
  return 0;
}

}  // namespace vmbfs::hyperv
