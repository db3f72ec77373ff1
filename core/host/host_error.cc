#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "core/host/host.h"

namespace vmbfs {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Status HostError(absl::StatusCode code, std::string_view reason, std::string_view message) {
  absl::Status status(code, View(message));
  status.SetPayload(View(kReasonUrl), absl::Cord(View(reason)));
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  const auto reason = status.GetPayload(View(kReasonUrl));
  return reason.has_value() ? std::string(*reason) : std::string();
}

}  // namespace vmbfs
