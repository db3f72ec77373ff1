#include "core/backing/single_file_backing.h"

#include <utility>

#include "core/path/windows_case.h"

namespace vmbfs {

SingleFileBacking::SingleFileBacking(std::u16string name, std::shared_ptr<const File> file,
                                     std::string description)
    : name_(std::move(name)), file_(std::move(file)), description_(std::move(description)) {}

const File* SingleFileBacking::Find(const GuestPath& path) const {
  if (path.above_root()) return nullptr;
  if (path.is_root()) return &root_;
  return CompareNames(path.text(), name_) == 0 ? file_.get() : nullptr;
}

}  // namespace vmbfs
