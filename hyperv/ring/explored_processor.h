// One of two processors that share the pages of a small ring, with the delays
// that total store order allows. For the model check of the signal rules.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/ring/ring_format.h"

namespace vmbfs::hyperv {

// What a side is about, for traces, and for a mutation of just this part.
enum class RingCall { kOpen, kReserve, kPublish, kRequestSpace, kSleep, kRead, kConsume, kArm };

// A fault that is put into the code under the explorer, by its memory.
struct RingMutation {
  // This word's stores, or loads, are not sequentially consistent.
  std::optional<ControlWord> plain_store;
  std::optional<ControlWord> plain_load;
  // In this call `early_word` is loaded ahead of everything else.
  std::optional<RingCall> early_call;
  ControlWord early_word = ControlWord::kIn;
  // The signal that ends this call is not sent.
  std::optional<RingCall> unsignalled_call;
  // A reader whose mask is set does not signal a waiting writer.
  bool mask_gates_space_signal = false;
  // S - 1 is taken for its word.
  bool pending_is_not_rounded_down = false;
  // The writer takes the ring for empty whenever it looks for room.
  bool room_is_not_checked = false;
};

// The shared pages, and what each processor has under way.
struct ExploredMachine {
  std::string memory;  // the control words, then the data area

  struct Side {
    std::string stores;  // not yet in memory, oldest first
    std::string seen;    // results of the operations of the call under way
    uint8_t operations = 0;
    bool signalled = false;
  };
  std::array<Side, 2> sides;  // the writer, the reader
};
inline constexpr size_t kWriterSide = 0;
inline constexpr size_t kReaderSide = 1;

// Runs a call of one side up to its next operation on shared memory. The call
// starts from its beginning each time: operations done before give the same
// result again, one new one is done, and the next one ends the run.
//
// Thread safety: none.
// Bounds: kStoresMax stores wait at most; the next one waits for a place.
class ExploredProcessor {
 public:
  // What ends a run, thrown by operations. For tests only.
  struct Suspended {};
  struct Failed {
    std::string what;
  };

  ExploredProcessor(size_t side, uint32_t data_bytes, const RingMutation& mutation)
      : side_index_(side), data_bytes_(data_bytes), mutation_(mutation) {}

  // A run's start: `choice` is what Choose answers when it is the new one.
  // `trace`, unless null, gets a line about each new operation.
  void Start(ExploredMachine& machine, uint32_t choice, std::vector<std::string>* trace);
  // How many answers Choose had in this run.
  uint32_t choices() const { return choices_; }
  // Whether a new operation was done.
  bool operated() const { return operated_; }

  // Whether a word waits to be stored.
  static bool CanDrain(const ExploredMachine::Side& side);
  // Moves the oldest waiting word of `side` to memory. Bytes of packets go
  // along with the word behind them, as late as can be: who reads them before
  // sees what shows, kScribble.
  // REQUIRES: CanDrain.
  static void Drain(ExploredMachine& machine, size_t side, uint32_t data_bytes,
                    std::vector<std::string>* trace);
  static std::string NewMemory(uint32_t data_bytes);
  static uint32_t WordInMemory(const ExploredMachine& machine, ControlWord word);
  static void SetWordInMemory(ExploredMachine& machine, ControlWord word, uint32_t value);

  // Operations, in the order of the program.
  void Begin(RingCall call);
  uint32_t Load(ControlWord word, bool fenced);
  void Store(ControlWord word, uint32_t value, bool fenced);
  void Fence();
  void CopyOut(uint32_t offset, std::span<std::byte> to);
  void CopyIn(uint32_t offset, std::span<const std::byte> from);
  void SignalPeer();
  void WaitForSignal();
  uint32_t Choose(uint32_t below);
  [[noreturn]] void Fail(std::string what) const { throw Failed{std::move(what)}; }

  uint32_t data_bytes() const { return data_bytes_; }

 private:
  static constexpr size_t kStoresMax = 8;

  ExploredMachine::Side& side() { return machine_->sides[side_index_]; }
  // A store that goes to the buffer is seen by nobody yet: a run does it along
  // with the operation before.
  enum class Reach { kPrivate, kShared };
  // Whether the next operation was done in an earlier run.
  bool WasDone(Reach reach);
  void Remember(const void* result, size_t bytes);
  void Recall(void* result, size_t bytes);
  bool FencedStoreWaits();
  void Enqueue(size_t position, bool fenced, const void* bytes, size_t count);
  // What this side sees: memory behind its own waiting stores.
  void See(size_t position, void* bytes, size_t count);
  void Trace(const std::string& line);

  const size_t side_index_;
  const uint32_t data_bytes_;
  const RingMutation mutation_;

  ExploredMachine* machine_ = nullptr;
  std::vector<std::string>* trace_ = nullptr;
  uint32_t choice_ = 0;
  uint32_t choices_ = 1;
  RingCall call_ = RingCall::kOpen;
  std::optional<uint32_t> early_value_;
  size_t replayed_ = 0;
  size_t recalled_bytes_ = 0;
  bool operated_ = false;
};

// The same as the memory of a ring. Copies are the same memory.
class ExploredMemory {
 public:
  explicit ExploredMemory(ExploredProcessor& processor) : processor_(&processor) {}

  uint32_t data_bytes() const { return processor_->data_bytes(); }
  uint32_t Load(ControlWord word, std::memory_order order) const {
    return processor_->Load(word, order == std::memory_order_seq_cst);
  }
  void Store(ControlWord word, uint32_t value, std::memory_order order) {
    processor_->Store(word, value, order == std::memory_order_seq_cst);
  }
  absl::StatusOr<uint32_t> LoadIndex(ControlWord word, std::memory_order order) const {
    const uint32_t index = Load(word, order);
    if (!IsRingIndex(index, data_bytes())) return absl::InvalidArgumentError("no ring index");
    return index;
  }
  void Fence() { processor_->Fence(); }
  void CopyOut(uint32_t offset, std::span<std::byte> to) const { processor_->CopyOut(offset, to); }
  void CopyIn(uint32_t offset, std::span<const std::byte> from) {
    processor_->CopyIn(offset, from);
  }

 private:
  ExploredProcessor* processor_;
};

}  // namespace vmbfs::hyperv
