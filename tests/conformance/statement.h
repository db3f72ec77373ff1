// The statements of shared/specs/vmbus.md section 13, and what they run on.

#pragma once

#include <vector>

#include "tests/conformance/host_control.h"
#include "tests/conformance/raw_guest.h"
#include "tests/conformance/verdict.h"

namespace vmbfs::conformance {

struct Bench {
  KitOptions options;
  HostControl* control = nullptr;  // null without --control
};

// Each begins with a connection of its own and leaves nothing behind.
struct Statement {
  int number;
  const char* text;
  void (*run)(const Bench& bench, Verdict& verdict);
};

// Of a statement that no other process can check: README.md says what does.
void RunsInProcess(const Bench& bench, Verdict& verdict);

std::vector<Statement> TransportStatements();
std::vector<Statement> NegotiationStatements();
std::vector<Statement> OfferStatements();
std::vector<Statement> GpadlStatements();
std::vector<Statement> ChannelStatements();
std::vector<Statement> LifeCycleStatements();
std::vector<Statement> RingStatements();
std::vector<Statement> RingFaultStatements();
std::vector<Statement> PipeStatements();
std::vector<Statement> VmbfsStatements();

// All of them, by number.
std::vector<Statement> AllStatements();

}  // namespace vmbfs::conformance
