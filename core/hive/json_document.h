// JSON text as a tree of nodes that know where they stand.
//
// Trust: the text is anybody's. What JSON leaves open is refused: a member that
// an object has twice, and numbers that are not whole or do not fit 64 bits.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/hive/imc_settings.h"

namespace vmbfs::hive {

inline constexpr size_t kJsonNodesMax = 1'000'000;
inline constexpr size_t kJsonDepthMax = 16;

struct JsonNode {
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  uint32_t line = 0;                    // from 1
  uint32_t column = 0;                  // from 1, in characters
  uint64_t number = 0;                  // kNumber; kBool: 0 or 1
  std::string text = {};                // kString: UTF-8
  std::string name = {};                // of a member of an object: UTF-8
  std::vector<JsonNode> elements = {};  // kArray; kObject: in the order of the text

  // nullptr: no member of this name.
  const JsonNode* Member(std::string_view wanted) const;
};

// Thread safety: one thread, or many that only read.
// Bounds: kJsonNodesMax nodes, kJsonDepthMax containers within one another.
class JsonDocument {
 public:
  // `name` is the file's, for messages; `bytes` are UTF-8, or UTF-16LE with a
  // byte order mark.
  // Errors: kInvalidArgument "NAME:LINE:COLUMN: what is wrong".
  static absl::StatusOr<JsonDocument> Parse(const std::string& name,
                                            std::span<const std::byte> bytes);

  const JsonNode& root() const { return root_; }

  InputPlace PlaceOf(const JsonNode& node) const {
    return {.input = name_, .line = node.line, .column = node.column};
  }
  // "NAME:LINE:COLUMN: REASON" of a node.
  absl::Status Error(const JsonNode& node, absl::string_view reason) const;
  // Likewise an error of somebody else; OK stays OK.
  absl::Status Located(const JsonNode& node, const absl::Status& status) const;

 private:
  std::string name_;
  JsonNode root_;
};

}  // namespace vmbfs::hive
