// A model check of the signal rules over the code of the rings: every order in
// which a writer's and a reader's operations on a small ring can fall, and
// every delay of their stores that total store order allows.
//
// What is covered and what is not: README.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "hyperv/ring/explored_processor.h"
#include "hyperv/ring/explored_sides.h"

namespace vmbfs::hyperv {

struct SignalExploration {
  uint32_t data_bytes = 64;  // at most kRingBytesMax, a multiple of 8
  uint32_t start_index = 0;
  // What a reader before left in the mask.
  uint32_t old_mask = 0;
  ExploredWriterOptions writer;
  ExploredReaderOptions reader;
  RingMutation mutation;

  static constexpr uint32_t kRingBytesMax = 200;
};

struct SignalFindings {
  // Empty when all is well. Otherwise what went wrong, and the shortest way there.
  std::string fault;
  std::vector<std::string> steps;

  size_t states = 0;
  size_t transitions = 0;
  // States in which it is so: an exploration without them proves nothing.
  size_t reader_sleeps = 0;
  size_t writer_sleeps = 0;
  size_t signals_under_way = 0;
  size_t data_wraps = 0;
};

// Visits every state that can be reached, or those up to the first fault:
//   - one side sleeps, no signal is under way to it, the other one is done with
//     what could send it, and there is work (a packet; as much space as asked for);
//   - nobody can go on;
//   - a packet is not the one that is due, or is refused.
//
// Bounds: kExploredStatesMax states; more are a fault.
inline constexpr size_t kExploredStatesMax = 2'000'000;
SignalFindings ExploreSignals(const SignalExploration& exploration);

}  // namespace vmbfs::hyperv
