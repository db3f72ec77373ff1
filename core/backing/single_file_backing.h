// A tree of one file: the root, and the file in it.

#pragma once

#include <memory>
#include <string>

#include "core/backing/backing.h"
#include "core/backing/directory.h"

namespace vmbfs {

// The file has one name; letter case does not matter.
// Thread safety: immutable; any thread.
class SingleFileBacking final : public Backing {
 public:
  // `name` as FileNameFromUtf8 returns it; `description` is what Describe says.
  // REQUIRES: file is not null and no directory.
  SingleFileBacking(std::u16string name, std::shared_ptr<const File> file, std::string description);

  const File* Find(const GuestPath& path) const override;
  std::string Describe() const override { return description_; }

 private:
  const std::u16string name_;
  const std::shared_ptr<const File> file_;
  const Directory root_;
  const std::string description_;
};

}  // namespace vmbfs
