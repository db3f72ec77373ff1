#include "hyperv/ring/explored_processor.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

constexpr std::array kWords = {ControlWord::kIn, ControlWord::kOut, ControlWord::kInterruptMask,
                               ControlWord::kPendingSendSize, ControlWord::kFeatureBits};
constexpr std::array<const char*, kWords.size()> kWordNames = {"in", "out", "mask", "pending",
                                                               "features"};
constexpr size_t kWordBytes = sizeof(uint32_t);
constexpr size_t kDataPosition = kWords.size() * kWordBytes;
constexpr char kScribble = '\xEE';

size_t WordIndex(ControlWord word) {
  for (size_t i = 0; i < kWords.size(); ++i) {
    if (kWords[i] == word) return i;
  }
  std::abort();
}

const char* Name(ControlWord word) { return kWordNames[WordIndex(word)]; }

const char* Name(RingCall call) {
  static constexpr std::array<const char*, 8> kNames = {
      "Open", "Reserve", "Publish", "RequestSpace", "sleep", "Read", "Consume", "Arm"};
  return kNames[static_cast<size_t>(call)];
}

const char* SideName(size_t side) { return side == kWriterSide ? "writer" : "reader"; }

// A waiting store is a position, a count, whether it is sequentially
// consistent, and so many bytes.
struct WaitingStore {
  size_t position;
  bool fenced;
  std::string_view bytes;
};
constexpr size_t kStoreHeaderBytes = 3;

WaitingStore FirstStore(std::string_view stores) {
  return {static_cast<uint8_t>(stores[0]), stores[2] != 0,
          stores.substr(kStoreHeaderBytes, static_cast<uint8_t>(stores[1]))};
}

// The place in memory of the byte `i` of a piece at `position`: a piece of the
// data area goes round.
size_t Place(size_t position, size_t i, uint32_t data_bytes) {
  if (position < kDataPosition) return position + i;
  return kDataPosition + (position - kDataPosition + i) % data_bytes;
}

// Writes to memory. Space that the reader gives up is scribbled over: who reads
// it after all reads no packet, and states that differ in it are the same.
void Write(ExploredMachine& machine, size_t position, std::string_view bytes, uint32_t data_bytes) {
  const uint32_t old_out = ExploredProcessor::WordInMemory(machine, ControlWord::kOut);
  for (size_t i = 0; i < bytes.size(); ++i) {
    machine.memory[Place(position, i, data_bytes)] = bytes[i];
  }
  const uint32_t out = ExploredProcessor::WordInMemory(machine, ControlWord::kOut);
  for (size_t i = 0; i < RingUsedBytes(out, old_out, data_bytes); ++i) {
    machine.memory[Place(kDataPosition + old_out, i, data_bytes)] = kScribble;
  }
}

}  // namespace

std::string ExploredProcessor::NewMemory(uint32_t data_bytes) {
  if (kDataPosition + data_bytes > 0xFF) std::abort();  // a position is one byte
  return std::string(kDataPosition, '\0') + std::string(data_bytes, kScribble);
}

uint32_t ExploredProcessor::WordInMemory(const ExploredMachine& machine, ControlWord word) {
  uint32_t value;
  std::memcpy(&value, machine.memory.data() + WordIndex(word) * kWordBytes, kWordBytes);
  return value;
}

void ExploredProcessor::SetWordInMemory(ExploredMachine& machine, ControlWord word,
                                        uint32_t value) {
  std::memcpy(machine.memory.data() + WordIndex(word) * kWordBytes, &value, kWordBytes);
}

bool ExploredProcessor::CanDrain(const ExploredMachine::Side& side) {
  for (std::string_view stores = side.stores; !stores.empty();) {
    const WaitingStore store = FirstStore(stores);
    if (store.position < kDataPosition) return true;
    stores.remove_prefix(kStoreHeaderBytes + store.bytes.size());
  }
  return false;
}

void ExploredProcessor::Drain(ExploredMachine& machine, size_t side, uint32_t data_bytes,
                              std::vector<std::string>* trace) {
  std::string& stores = machine.sides[side].stores;
  for (bool is_word = false; !is_word;) {
    const WaitingStore store = FirstStore(stores);
    Write(machine, store.position, store.bytes, data_bytes);
    is_word = store.position < kDataPosition;
    if (is_word && trace != nullptr) {
      const ControlWord word = kWords[store.position / kWordBytes];
      trace->push_back(absl::StrCat(SideName(side), "'s store reaches memory: ", Name(word), " = ",
                                    WordInMemory(machine, word)));
    }
    stores.erase(0, kStoreHeaderBytes + store.bytes.size());
  }
}

void ExploredProcessor::Start(ExploredMachine& machine, uint32_t choice,
                              std::vector<std::string>* trace) {
  machine_ = &machine;
  choice_ = choice;
  trace_ = trace;
  choices_ = 1;
  early_value_.reset();
  replayed_ = 0;
  recalled_bytes_ = 0;
  operated_ = false;
}

bool ExploredProcessor::WasDone(Reach reach) {
  if (replayed_ < side().operations) {
    ++replayed_;
    return true;
  }
  if (operated_ && reach == Reach::kShared) throw Suspended{};
  return false;
}

void ExploredProcessor::Remember(const void* result, size_t bytes) {
  side().seen.append(static_cast<const char*>(result), bytes);
  recalled_bytes_ += bytes;
  ++side().operations;
  ++replayed_;
  operated_ = true;
}

void ExploredProcessor::Recall(void* result, size_t bytes) {
  std::memcpy(result, side().seen.data() + recalled_bytes_, bytes);
  recalled_bytes_ += bytes;
}

void ExploredProcessor::Trace(const std::string& line) {
  if (trace_ == nullptr) return;
  trace_->push_back(absl::StrCat(SideName(side_index_), " ", Name(call_), ": ", line));
}

void ExploredProcessor::See(size_t position, void* bytes, size_t count) {
  auto* to = static_cast<char*>(bytes);
  for (size_t i = 0; i < count; ++i) to[i] = machine_->memory[Place(position, i, data_bytes_)];
  for (std::string_view stores = side().stores; !stores.empty();) {
    const WaitingStore store = FirstStore(stores);
    for (size_t i = 0; i < store.bytes.size(); ++i) {
      const size_t place = Place(store.position, i, data_bytes_);
      for (size_t j = 0; j < count; ++j) {
        if (Place(position, j, data_bytes_) == place) to[j] = store.bytes[i];
      }
    }
    stores.remove_prefix(kStoreHeaderBytes + store.bytes.size());
  }
}

void ExploredProcessor::Enqueue(size_t position, bool fenced, const void* bytes, size_t count) {
  std::string& stores = side().stores;
  size_t waiting = 0;
  size_t last = 0;
  for (size_t at = 0; at < stores.size(); ++waiting) {
    last = std::exchange(
        at, at + kStoreHeaderBytes + FirstStore(std::string_view(stores).substr(at)).bytes.size());
  }
  if (waiting == kStoresMax) throw Suspended{};
  if (waiting != 0) {
    const WaitingStore before = FirstStore(std::string_view(stores).substr(last));
    if (before.position >= kDataPosition &&
        Place(before.position, before.bytes.size(), data_bytes_) == position) {
      stores[last + 1] = static_cast<char>(before.bytes.size() + count);
      stores.append(static_cast<const char*>(bytes), count);
      return;
    }
  }
  stores.push_back(static_cast<char>(position));
  stores.push_back(static_cast<char>(count));
  stores.push_back(fenced ? 1 : 0);
  stores.append(static_cast<const char*>(bytes), count);
}

void ExploredProcessor::Begin(RingCall call) {
  call_ = call;
  early_value_.reset();
  if (mutation_.early_call == call) early_value_ = Load(mutation_.early_word, false);
}

bool ExploredProcessor::FencedStoreWaits() {
  for (std::string_view stores = side().stores; !stores.empty();) {
    const WaitingStore store = FirstStore(stores);
    if (store.fenced) return true;
    stores.remove_prefix(kStoreHeaderBytes + store.bytes.size());
  }
  return false;
}

uint32_t ExploredProcessor::Load(ControlWord word, bool fenced) {
  if (early_value_.has_value() && word == mutation_.early_word) return *early_value_;
  uint32_t value;
  if (WasDone(Reach::kShared)) {
    Recall(&value, sizeof(value));
    return value;
  }
  if (mutation_.plain_load == word) fenced = false;
  if (fenced && FencedStoreWaits()) throw Suspended{};
  See(WordIndex(word) * kWordBytes, &value, sizeof(value));
  if (word == ControlWord::kOut && call_ == RingCall::kReserve && mutation_.room_is_not_checked) {
    See(WordIndex(ControlWord::kIn) * kWordBytes, &value, sizeof(value));
  }
  if (word == ControlWord::kPendingSendSize && mutation_.pending_is_not_rounded_down) {
    value = static_cast<uint32_t>((value + kRingUnitBytes - 1) / kRingUnitBytes * kRingUnitBytes);
  }
  Remember(&value, sizeof(value));
  Trace(absl::StrCat("loads ", Name(word), ": ", value));
  return value;
}

void ExploredProcessor::Store(ControlWord word, uint32_t value, bool fenced) {
  if (WasDone(Reach::kPrivate)) return;
  if (mutation_.plain_store == word) fenced = false;
  Enqueue(WordIndex(word) * kWordBytes, fenced, &value, sizeof(value));
  Remember(nullptr, 0);
  Trace(absl::StrCat("stores ", Name(word), " = ", value));
}

void ExploredProcessor::Fence() {
  if (WasDone(Reach::kShared)) return;
  if (CanDrain(side())) throw Suspended{};
  Remember(nullptr, 0);
  Trace("fence");
}

void ExploredProcessor::CopyOut(uint32_t offset, std::span<std::byte> to) {
  if (to.empty()) return;
  if (WasDone(Reach::kShared)) {
    Recall(to.data(), to.size());
    return;
  }
  See(kDataPosition + offset, to.data(), to.size());
  Remember(to.data(), to.size());
  Trace(absl::StrCat("copies ", to.size(), " bytes of data from ", offset));
}

void ExploredProcessor::CopyIn(uint32_t offset, std::span<const std::byte> from) {
  if (from.empty() || WasDone(Reach::kPrivate)) return;
  Enqueue(kDataPosition + offset, false, from.data(), from.size());
  Remember(nullptr, 0);
  Trace(absl::StrCat("copies ", from.size(), " bytes of data to ", offset));
}

void ExploredProcessor::SignalPeer() {
  if (mutation_.unsignalled_call == call_) return;
  if (mutation_.mask_gates_space_signal && call_ == RingCall::kConsume &&
      Load(ControlWord::kInterruptMask, false) != 0) {
    return;
  }
  if (WasDone(Reach::kShared)) return;
  machine_->sides[1 - side_index_].signalled = true;
  Remember(nullptr, 0);
  Trace(absl::StrCat("signals the ", SideName(1 - side_index_)));
}

void ExploredProcessor::WaitForSignal() {
  if (WasDone(Reach::kShared)) return;
  if (!side().signalled) throw Suspended{};
  side().signalled = false;
  Remember(nullptr, 0);
  Trace("wakes up");
}

uint32_t ExploredProcessor::Choose(uint32_t below) {
  if (below == 1) return 0;
  uint32_t value;
  if (WasDone(Reach::kShared)) {
    Recall(&value, sizeof(value));
    return value;
  }
  value = choice_;
  choices_ = below;
  Remember(&value, sizeof(value));
  operated_ = false;
  Trace(absl::StrCat("chooses ", value, " of ", below));
  return value;
}

}  // namespace vmbfs::hyperv
