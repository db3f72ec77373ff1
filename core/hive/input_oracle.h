// What must hold of an input that a fuzzer gave to one of the readers of text.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "core/hive/hive_reader.h"
#include "core/hive/hive_writer.h"
#include "core/hive/imc_settings.h"
#include "core/hive/registry_tree.h"
#include "hyperv/fuzz_input/fuzz_input.h"

namespace vmbfs::hive {

// The same keys in the order of their names, and the same values in theirs.
inline bool SameTrees(const RegistryTree& a, const RegistryTree& b) {
  const auto keys_a = a.KeysInOrder();
  const auto keys_b = b.KeysInOrder();
  return std::equal(
      keys_a.begin(), keys_a.end(), keys_b.begin(), keys_b.end(),
      [&a, &b](RegistryTree::KeyId id_a, RegistryTree::KeyId id_b) {
        const RegistryTree::Key& key_a = a.key(id_a);
        const RegistryTree::Key& key_b = b.key(id_b);
        return key_a.name == key_b.name && key_a.depth == key_b.depth &&
               std::equal(key_a.values.begin(), key_a.values.end(), key_b.values.begin(),
                          key_b.values.end(), [](const RegistryValue& x, const RegistryValue& y) {
                            return x.name == y.name && x.type == y.type && x.data == y.data;
                          });
      });
}

// A tree is written, read strictly as the same, and written again as the same
// bytes; or a named limit is in the way.
inline void RequireRoundTrip(const RegistryTree& tree) {
  using hyperv::Require;
  const auto written = WriteHive(tree);
  if (!written.ok()) {
    Require(
        absl::IsResourceExhausted(written.status()) || absl::IsInvalidArgument(written.status()),
        "only a limit keeps a tree from being written");
    return;
  }
  const auto reading = ReadHive(written->bytes);
  Require(reading.ok(), "what is written is read");
  Require(reading->warnings.empty(), "and nothing of it is unusual");
  Require(SameTrees(reading->tree, tree), "as the same keys and values");
  Require(WriteHive(reading->tree)->bytes == written->bytes, "and written as the same bytes");
}

// One of AddRegFile, AddJsonFile and AddPolicyFile.
using AddFile = absl::Status (*)(const std::string& name, std::span<const std::byte> bytes,
                                 ImcSettings& settings);

// A file that is refused says where; one that is taken makes a hive that reads as
// the same, and then `require_more` of its tree.
template <typename RequireMore>
void RequireOfFile(AddFile add, const uint8_t* data, size_t size, RequireMore require_more) {
  auto settings = ImcSettings::Create({.rewrite_control_sets = true, .force = true});
  const absl::Status status = add("in", std::as_bytes(std::span(data, size)), *settings);
  if (!status.ok()) {
    hyperv::Require(absl::StartsWith(status.message(), "in:"), "a refusal says where");
    return;
  }
  RequireRoundTrip(settings->tree());
  require_more(settings->tree());
}

// The tree of text that was exported.
inline RegistryTree TreeOfExport(AddFile add, std::string_view text) {
  auto settings = ImcSettings::Create({.force = true});
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  hyperv::Require(add("out", bytes, *settings).ok(), "what is exported is taken");
  return settings->tree();
}

}  // namespace vmbfs::hive
