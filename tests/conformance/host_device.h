// The IMC device in the host's hands while one statement runs.

#pragma once

#include "absl/status/status.h"
#include "tests/conformance/statement.h"
#include "tests/conformance/verdict.h"

namespace vmbfs::conformance {

// Skips the statement where there is no --control. The device is attached
// again when it goes, whatever became of the statement.
class HostDevice {
 public:
  HostDevice(const Bench& bench, Verdict& verdict) : control_(bench.control), verdict_(verdict) {
    if (control_ == nullptr) verdict_.Skip("needs --control: the host must act");
  }
  ~HostDevice() {
    if (control_ != nullptr) control_->Restore().IgnoreError();
  }
  HostDevice(const HostDevice&) = delete;
  HostDevice& operator=(const HostDevice&) = delete;

  void Detach() {
    if (verdict_.open()) Check(control_->Detach(), "detach");
  }
  void Attach() {
    if (verdict_.open()) Check(control_->Attach(), "attach");
  }

 private:
  void Check(const absl::Status& status, const char* what) {
    verdict_.Expect(status.ok(), what, ": ", status.message());
  }

  HostControl* const control_;
  Verdict& verdict_;
};

}  // namespace vmbfs::conformance
