#include "tests/conformance/statement.h"

namespace vmbfs::conformance {

std::vector<Statement> AllStatements() {
  std::vector<Statement> all;
  for (const auto& section :
       {TransportStatements(), NegotiationStatements(), OfferStatements(), GpadlStatements(),
        ChannelStatements(), LifeCycleStatements(), RingStatements(), PipeAndVmbfsStatements()}) {
    all.insert(all.end(), section.begin(), section.end());
  }
  return all;
}

}  // namespace vmbfs::conformance
