#include "tests/conformance/statement.h"

namespace vmbfs::conformance {

void RunsInProcess(const Bench&, Verdict& verdict) { verdict.Skip("runs in the in-process form"); }

std::vector<Statement> AllStatements() {
  std::vector<Statement> all;
  for (const auto& section :
       {TransportStatements(), NegotiationStatements(), OfferStatements(), GpadlStatements(),
        ChannelStatements(), LifeCycleStatements(), RingStatements(), RingFaultStatements(),
        PipeStatements(), VmbfsStatements()}) {
    all.insert(all.end(), section.begin(), section.end());
  }
  return all;
}

}  // namespace vmbfs::conformance
