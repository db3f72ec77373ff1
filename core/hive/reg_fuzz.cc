// Inputs as `.reg` text: what is accepted makes a hive that reads as the same keys and
// values; what is refused says where.
//
// Input: the file.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "core/hive/imc_settings.h"
#include "core/hive/input_oracle.h"
#include "core/hive/reg_file.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {
namespace {

using hyperv::Require;

// Exported and added again it is the same, unless a name did not fit a line.
void RequireSameFromText(const RegistryTree& tree) {
  const std::string utf8 = RegFileOf(tree).value();
  if (absl::StrContains(utf8, "is left out")) return;
  const std::string text = ForRegedit(utf8);
  auto again = ImcSettings::Create({.force = true});
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  Require(AddRegFile("out", {bytes, text.size()}, *again).ok(), "what is exported is taken");
  Require(RegFileOf(again->tree()).value() == utf8, "and exported as the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  auto settings = ImcSettings::Create({.rewrite_control_sets = true, .force = true});
  const absl::Status status = AddRegFile("in", bytes, *settings);
  if (!status.ok()) {
    Require(absl::StartsWith(status.message(), "in:"), "a refusal says where");
    return 0;
  }
  RequireRoundTrip(settings->tree());
  RequireSameFromText(settings->tree());
  return 0;
}

}  // namespace vmbfs::hive
