// A tree of live state, as inspect shows it.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace vmbfs::inspect {

// One node: a leaf with a value, or a folder with children in a fixed order.
// Thread safety: a value.
struct Node {
  using Value = std::variant<std::monostate, bool, int64_t, uint64_t, std::string>;

  std::string name;
  Value value;  // monostate: a folder
  std::vector<Node> children;
  bool truncated = false;  // has children that the asked depth left out

  // Appends a leaf or a folder and returns it.
  Node& Add(std::string_view child, Value leaf);
  Node& AddFolder(std::string_view child);
};

// The pieces of a path; empty ones are left out.
std::vector<std::string> Pieces(std::string_view path);

// The node at `path` (pieces separated by `/`; empty: the root) with `depth`
// levels below it; depth 0 shows the node alone.
// Errors: kNotFound with the longest part of the path that exists.
absl::StatusOr<Node> Select(const Node& root, std::string_view path, uint32_t depth);

}  // namespace vmbfs::inspect
