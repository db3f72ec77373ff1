#include "core/inspect/node.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace vmbfs::inspect {
namespace {

Node CopyDown(const Node& node, uint32_t depth) {
  Node copy;
  copy.name = node.name;
  copy.value = node.value;
  copy.truncated = node.truncated;
  if (depth == 0) {
    copy.truncated |= !node.children.empty();
    return copy;
  }
  copy.children.reserve(node.children.size());
  for (const Node& child : node.children) copy.children.push_back(CopyDown(child, depth - 1));
  return copy;
}

}  // namespace

Node& Node::Add(std::string_view child, Value leaf) {
  Node& added = children.emplace_back();
  added.name = child;
  added.value = std::move(leaf);
  return added;
}

Node& Node::AddFolder(std::string_view child) { return Add(child, std::monostate{}); }

std::vector<std::string> Pieces(std::string_view path) {
  return absl::StrSplit(absl::string_view(path.data(), path.size()), '/', absl::SkipEmpty());
}

absl::StatusOr<Node> Select(const Node& root, std::string_view path, uint32_t depth) {
  const Node* at = &root;
  std::string found;
  for (const std::string& piece : Pieces(path)) {
    const auto next = std::find_if(at->children.begin(), at->children.end(),
                                   [&piece](const Node& child) { return child.name == piece; });
    if (next == at->children.end()) {
      return absl::NotFoundError(absl::StrCat("nothing is at this path below \"", found,
                                              "\"; show that with depth 1 for what is there"));
    }
    at = &*next;
    absl::StrAppend(&found, found.empty() ? "" : "/", piece);
  }
  return CopyDown(*at, depth);
}

}  // namespace vmbfs::inspect
