#include "core/resolver/resolver.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs {

absl::Status Resolver::Register(std::string kind, Factory factory) {
  if (!factories_.try_emplace(kind, std::move(factory)).second) {
    return absl::AlreadyExistsError(absl::StrCat("backing kind \"", kind, "\" is registered"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LiveBacking> Resolver::Resolve(const BackingSource& source) const {
  const auto found = factories_.find(source.kind);
  if (found == factories_.end()) {
    std::string known;
    for (const auto& [kind, factory] : factories_) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", kind);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("this program has no backing kind \"", source.kind, "\"; it has: ", known));
  }
  auto backing = found->second(source);
  if (!backing.ok()) return backing.status();
  return LiveBacking{.source = source, .backing = *std::move(backing)};
}

}  // namespace vmbfs
