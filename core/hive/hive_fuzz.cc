// The strict reader: what it accepts is written again, reads as the same, and is
// put into words and text; what it refuses has a reason.
//
// Input: a hive, whose checksum is mended; or, where it does not begin with
// `regf`, the bins of one, behind a base block that fits them.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "core/hive/explain.h"
#include "core/hive/hive_checksum.h"
#include "core/hive/hive_diff.h"
#include "core/hive/hive_format.h"
#include "core/hive/hive_reader.h"
#include "core/hive/hive_writer.h"
#include "core/hive/imc_build.h"
#include "core/hive/input_oracle.h"
#include "core/hive/json_file.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {
namespace {

using hyperv::Require;

constexpr size_t kBytesMax = size_t{1} << 20;

std::vector<std::byte> HiveOf(std::span<const std::byte> input) {
  std::vector<std::byte> hive(input.begin(), input.end());
  BaseBlock base{};
  if (input.size() >= 4 && std::memcmp(input.data(), "regf", 4) == 0) {
    if (hive.size() < sizeof(base)) return hive;
    std::memcpy(&base, hive.data(), sizeof(base));
  } else {
    hive.insert(hive.begin(), sizeof(base), std::byte{0});
    const std::vector<std::byte> good = WriteHive(RegistryTree())->bytes;
    std::memcpy(&base, good.data(), sizeof(base));
    hive.resize((hive.size() + kBinUnitBytes - 1) / kBinUnitBytes * kBinUnitBytes);
    base.bins_bytes = static_cast<uint32_t>(hive.size() - sizeof(base));
  }
  base.checksum = ChecksumOf(base);
  std::memcpy(hive.data(), &base, sizeof(base));
  return hive;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kBytesMax) return 0;
  const std::vector<std::byte> hive = HiveOf(std::as_bytes(std::span(data, size)));
  const auto reading = ReadHive(hive);
  if (!reading.ok()) {
    Require(absl::IsInvalidArgument(reading.status()) && !reading.status().message().empty(),
            "a refusal has a reason");
    return 0;
  }
  RequireRoundTrip(reading->tree);
  Require(DiffTrees(reading->tree, reading->tree).same, "it is the same as itself");
  ExplainHive(reading->tree);
  const auto validation = ValidateImc(hive);
  if (!validation.ok()) return 0;
  // What a machine would take is text that makes it again, but for what no input
  // can hold.
  const auto text = JsonFileOf(reading->tree);
  if (!text.ok()) return 0;
  const auto* bytes = reinterpret_cast<const std::byte*>(text->data());
  auto settings = ImcSettings::Create({.force = true});
  if (AddJsonFile("x", {bytes, text->size()}, *settings).ok()) {
    RequireRoundTrip(settings->tree());
  }
  return 0;
}

}  // namespace vmbfs::hive
