// From a described backing to a live one.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backing/backing.h"
#include "core/resolver/backing_source.h"

namespace vmbfs {

// A backing together with what it was made from. Thread safety: a value.
struct LiveBacking {
  BackingSource source;
  std::shared_ptr<const Backing> backing;
};

// Thread safety: Register before any other thread has the resolver; Resolve
// from any thread, where it waits for the disk.
class Resolver {
 public:
  using Factory =
      std::function<absl::StatusOr<std::shared_ptr<const Backing>>(const BackingSource&)>;

  // Errors: kAlreadyExists.
  absl::Status Register(std::string kind, Factory factory);

  // Errors: kInvalidArgument for an unknown kind (the message lists the known
  // ones); otherwise the factory's.
  absl::StatusOr<LiveBacking> Resolve(const BackingSource& source) const;

 private:
  std::map<std::string, Factory, std::less<>> factories_;
};

// Stands in for a backing whose content is lost or damaged: the file is there,
// with its size, and every read fails with `reason`, so that the guest is
// answered with an error and not with a file too few.
// Errors: kInvalidArgument when the file's name cannot stand in a tree.
absl::StatusOr<LiveBacking> MakeUnreadableBacking(const BackingSource& source,
                                                  const absl::Status& reason);

}  // namespace vmbfs
