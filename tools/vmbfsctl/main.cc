// vmbfsctl: the control plane of vmbfsd for people. Exit codes: ctl.h.

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "tools/vmbfsctl/ctl.h"

int main(int argc, char** argv) {
  // gRPC's own log says nothing that our errors do not say better.
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return vmbfs::ctl::RunCtl(std::vector<std::string>(argv + 1, argv + argc), std::cout, std::cerr);
}
