#include "hyperv/ring/signal_explorer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// Gives equal parts of states equal small numbers, and keeps each part once.
template <typename Value>
class Numbered {
 public:
  uint32_t Add(const std::string& key, Value value) {
    const auto [entry, added] = numbers_.try_emplace(key, static_cast<uint32_t>(values_.size()));
    if (added) values_.push_back(std::move(value));
    return entry->second;
  }
  const Value& operator[](uint32_t number) const { return values_[number]; }

 private:
  absl::flat_hash_map<std::string, uint32_t> numbers_;
  std::vector<Value> values_;
};

struct State {
  ExploredMachine machine;
  std::array<uint32_t, 2> programs{};  // by number
};

// A state as numbers of its parts: memory, signals, and three for each side.
using PackedState = std::array<uint32_t, 8>;

struct Step {
  uint8_t side = 0;
  bool drain = false;
  uint8_t choice = 0;
};

class Explorer {
 public:
  explicit Explorer(const SignalExploration& exploration)
      : data_bytes_(exploration.data_bytes),
        processors_{ExploredProcessor(kWriterSide, data_bytes_, exploration.mutation),
                    ExploredProcessor(kReaderSide, data_bytes_, exploration.mutation)} {
    if (data_bytes_ > SignalExploration::kRingBytesMax) std::abort();
    start_.machine.memory = ExploredProcessor::NewMemory(data_bytes_);
    ExploredProcessor::SetWordInMemory(start_.machine, ControlWord::kIn, exploration.start_index);
    ExploredProcessor::SetWordInMemory(start_.machine, ControlWord::kOut, exploration.start_index);
    ExploredProcessor::SetWordInMemory(start_.machine, ControlWord::kInterruptMask,
                                       exploration.old_mask);
    start_.programs = {AddProgram(kWriterSide, MakeExploredWriter(exploration.writer)),
                       AddProgram(kReaderSide, MakeExploredReader(exploration.reader))};
  }

  SignalFindings Run() {
    Reach(start_, {0, {}});
    for (uint32_t node = 0; node < nodes_.size() && findings_.fault.empty(); ++node) {
      if (nodes_.size() > kExploredStatesMax) {
        findings_.fault = "more states than are allowed";
        break;
      }
      Visit(node);
    }
    findings_.states = nodes_.size();
    return std::move(findings_);
  }

 private:
  struct Origin {
    uint32_t node;
    Step step;
  };

  uint32_t AddProgram(size_t side, std::unique_ptr<const ExploredSide> program) {
    const std::string key = absl::StrCat(side, " ", program->Key());
    return programs_.Add(key, std::move(program));
  }

  PackedState Pack(const State& state) {
    PackedState packed = {memories_.Add(state.machine.memory, state.machine.memory)};
    for (size_t i = 0; i < 2; ++i) {
      const ExploredMachine::Side& side = state.machine.sides[i];
      packed[1] |= (side.signalled ? 1u : 0u) << i;
      packed[2 + 3 * i] = stores_.Add(side.stores, side.stores);
      const std::string call = static_cast<char>(side.operations) + side.seen;
      packed[3 + 3 * i] = calls_.Add(call, call);
      packed[4 + 3 * i] = state.programs[i];
    }
    return packed;
  }

  State Unpack(const PackedState& packed) const {
    State state;
    state.machine.memory = memories_[packed[0]];
    for (size_t i = 0; i < 2; ++i) {
      ExploredMachine::Side& side = state.machine.sides[i];
      side.signalled = (packed[1] >> i & 1) != 0;
      side.stores = stores_[packed[2 + 3 * i]];
      const std::string& call = calls_[packed[3 + 3 * i]];
      side.operations = static_cast<uint8_t>(call[0]);
      side.seen = call.substr(1);
      state.programs[i] = packed[4 + 3 * i];
    }
    return state;
  }

  void Reach(const State& state, const Origin& origin) {
    const PackedState packed = Pack(state);
    if (!known_.try_emplace(packed, static_cast<uint32_t>(nodes_.size())).second) return;
    nodes_.push_back(packed);
    origins_.push_back(origin);
  }

  // Takes the step from `state`; false when it is not possible there.
  // Throws ExploredProcessor::Failed.
  bool Take(State& state, const Step& step, std::vector<std::string>* trace) {
    if (step.drain) {
      ExploredProcessor::Drain(state.machine, step.side, data_bytes_, trace);
      return true;
    }
    ExploredProcessor& processor = processors_[step.side];
    std::unique_ptr<ExploredSide> program = programs_[state.programs[step.side]]->Clone();
    processor.Start(state.machine, step.choice, trace);
    try {
      program->Call(processor);
    } catch (const ExploredProcessor::Suspended&) {
      return processor.operated();
    }
    ExploredMachine::Side& side = state.machine.sides[step.side];
    side.seen.clear();
    side.operations = 0;
    state.programs[step.side] = AddProgram(step.side, std::move(program));
    return true;
  }

  void Visit(uint32_t node) {
    const State state = Unpack(nodes_[node]);
    Count(state);
    if (std::string fault = FaultOf(state); !fault.empty()) return Report(std::move(fault), node);
    size_t taken = 0;
    for (uint8_t side = 0; side < 2; ++side) {
      if (ExploredProcessor::CanDrain(state.machine.sides[side])) {
        taken += Try(state, node, {side, true, 0});
      }
      uint32_t choices = 1;
      for (uint8_t choice = 0; choice < choices; ++choice) {
        taken += Try(state, node, {side, false, choice});
        choices = processors_[side].choices();
      }
    }
    findings_.transitions += taken;
    if (taken == 0) Report("nobody can go on", node);
  }

  bool Try(const State& from, uint32_t node, const Step& step) {
    State state = from;
    try {
      if (!Take(state, step, nullptr)) return false;
    } catch (const ExploredProcessor::Failed& failed) {
      Report(failed.what, node);
      return true;
    }
    Reach(state, {node, step});
    return true;
  }

  bool Asleep(const State& state, size_t side) const {
    const ExploredMachine::Side& there = state.machine.sides[side];
    return programs_[state.programs[side]]->Sleeps() && there.operations == 0 && !there.signalled;
  }

  void Count(const State& state) {
    const uint32_t in = ExploredProcessor::WordInMemory(state.machine, ControlWord::kIn);
    const uint32_t out = ExploredProcessor::WordInMemory(state.machine, ControlWord::kOut);
    findings_.reader_sleeps += Asleep(state, kReaderSide);
    findings_.writer_sleeps += Asleep(state, kWriterSide);
    findings_.signals_under_way +=
        state.machine.sides[0].signalled || state.machine.sides[1].signalled;
    findings_.data_wraps += in < out && in != 0;
  }

  std::string FaultOf(const State& state) const {
    const auto& sides = state.machine.sides;
    if (ExploredProcessor::CanDrain(sides[0]) || ExploredProcessor::CanDrain(sides[1])) return "";
    const auto word = [&state](ControlWord which) {
      return ExploredProcessor::WordInMemory(state.machine, which);
    };
    const uint32_t in = word(ControlWord::kIn);
    const uint32_t out = word(ControlWord::kOut);
    if (Asleep(state, kReaderSide) && sides[kWriterSide].operations == 0 && in != out) {
      return absl::StrCat("the reader sleeps while the ring holds ",
                          RingUsedBytes(in, out, data_bytes_), " bytes and no signal is coming");
    }
    const uint32_t wanted = RoundDownToRingUnit(word(ControlWord::kPendingSendSize));
    const uint32_t free = RingFreeBytes(in, out, data_bytes_);
    if (Asleep(state, kWriterSide) && sides[kReaderSide].operations == 0 && free >= wanted) {
      return absl::StrCat("the writer sleeps until ", wanted, " bytes are free, ", free,
                          " are, and no signal is coming");
    }
    return "";
  }

  void Report(std::string fault, uint32_t node) {
    findings_.fault = std::move(fault);
    std::vector<Step> way;
    for (; node != 0; node = origins_[node].node) way.push_back(origins_[node].step);
    std::reverse(way.begin(), way.end());
    State state = start_;
    for (const Step& step : way) Take(state, step, &findings_.steps);
  }

  const uint32_t data_bytes_;
  std::array<ExploredProcessor, 2> processors_;
  State start_;

  Numbered<std::string> memories_;
  Numbered<std::string> stores_;
  Numbered<std::string> calls_;
  Numbered<std::unique_ptr<const ExploredSide>> programs_;
  absl::flat_hash_map<PackedState, uint32_t> known_;
  std::vector<PackedState> nodes_;  // in the order they were found
  std::vector<Origin> origins_;     // how each was reached
  SignalFindings findings_;
};

}  // namespace

SignalFindings ExploreSignals(const SignalExploration& exploration) {
  return Explorer(exploration).Run();
}

}  // namespace vmbfs::hyperv
