// The two forms of JSON inputs, and what they share.
//
// Trust and errors: as json_file.h. Thread safety: one thread.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/hive/imc_settings.h"
#include "core/hive/json_document.h"

namespace vmbfs::hive {

// {"sequence": 2, "keys": {PATH: {NAME: {TYPE: DATA}}}}
absl::Status AddCompactForm(const JsonDocument& document, ImcSettings& settings);

// {"AddValues": [{"Key": {…}, "Name": …, "Type": …, DATA}]}, `changes` of HCS.
absl::Status AddRegistryChanges(const JsonDocument& document, const JsonNode& changes,
                                ImcSettings& settings);

// That `node` is an object with members of these names only.
absl::Status CheckMembers(const JsonDocument& document, const JsonNode& node,
                          std::initializer_list<absl::string_view> names);

// That `node` is of this kind; `what` is for the message: "a string".
absl::Status CheckKind(const JsonDocument& document, const JsonNode& node, JsonNode::Kind kind,
                       const char* what);

// The number, when it is one and at most `max`.
absl::StatusOr<uint64_t> NumberIn(const JsonDocument& document, const JsonNode& node, uint64_t max);

// The string, when it is one and holds no NUL.
absl::StatusOr<std::u16string> TextIn(const JsonDocument& document, const JsonNode& node);

// The bytes of a string of hexadecimal digits, or of base64.
absl::StatusOr<std::vector<std::byte>> HexIn(const JsonDocument& document, const JsonNode& node);
absl::StatusOr<std::vector<std::byte>> Base64In(const JsonDocument& document, const JsonNode& node);

// REQUIRES: text of a JsonNode.
std::u16string UnitsOf(std::string_view text);

}  // namespace vmbfs::hive
