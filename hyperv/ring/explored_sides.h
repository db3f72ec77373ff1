// The programs of the model check: a writer that always has a next packet and
// a reader that takes whatever comes, each with a ring and the loop around it
// that its users write (hyperv/pipe, core/vmbfs).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hyperv/ring/explored_peers.h"
#include "hyperv/ring/explored_processor.h"
#include "hyperv/ring/incoming_ring.h"

namespace vmbfs::hyperv {

// One side between two calls. A call is run on a copy, again and again, until
// all its operations are done; then the copy takes this one's place.
class ExploredSide {
 public:
  virtual ~ExploredSide() = default;
  virtual std::unique_ptr<ExploredSide> Clone() const = 0;
  virtual void Call(ExploredProcessor& processor) = 0;

  // All that decides about the calls to come.
  virtual std::string Key() const = 0;
  // The next call does nothing but wait for a signal.
  virtual bool Sleeps() const = 0;
};

struct ExploredWriterOptions {
  RingCode code = RingCode::kOurs;
  // Each packet has one of these, and the explorer tries all.
  std::vector<uint32_t> payload_bytes = {0, 8};
  uint32_t packets_a_publish = 1;
  // After waking: take the request back at once (hyperv/guest), or when there
  // is room (core/vmbfs).
  bool clears_request_on_waking = true;
};
std::unique_ptr<ExploredSide> MakeExploredWriter(const ExploredWriterOptions& options);

struct ExploredReaderOptions {
  RingCode code = RingCode::kOurs;
  InterruptMasking masking = InterruptMasking::kWhileBusy;  // of ours
  uint32_t packets_a_consume = 1;
};
std::unique_ptr<ExploredSide> MakeExploredReader(const ExploredReaderOptions& options);

}  // namespace vmbfs::hyperv
