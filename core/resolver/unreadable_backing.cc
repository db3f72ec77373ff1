#include <utility>

#include "absl/strings/str_cat.h"
#include "core/backing/single_file_backing.h"
#include "core/path/guest_path.h"
#include "core/resolver/resolver.h"

namespace vmbfs {
namespace {

class UnreadableFile final : public File {
 public:
  UnreadableFile(uint64_t size_bytes, absl::Status reason)
      : size_bytes_(size_bytes), reason_(std::move(reason)) {}

  uint64_t size_bytes() const override { return size_bytes_; }
  // A copy of a status shares its text: this does not allocate.
  absl::StatusOr<size_t> ReadNow(uint64_t, std::span<const iovec>) const override {
    return reason_;
  }
  absl::StatusOr<size_t> ReadBlocking(uint64_t, std::span<std::byte>) const override {
    return reason_;
  }

 private:
  const uint64_t size_bytes_;
  const absl::Status reason_;
};

}  // namespace

absl::StatusOr<LiveBacking> MakeUnreadableBacking(const BackingSource& source,
                                                  const absl::Status& reason) {
  auto name = FileNameFromUtf8(source.file_name);
  if (!name.ok()) return name.status();
  // Not kUnavailable, which would send every read to the blocking pool first.
  auto file =
      std::make_shared<UnreadableFile>(source.size_bytes, absl::DataLossError(reason.message()));
  return LiveBacking{.source = source,
                     .backing = std::make_shared<SingleFileBacking>(
                         *std::move(name), std::move(file),
                         absl::StrCat("unreadable file ", source.file_name, ", ", source.size_bytes,
                                      " bytes: ", reason.message()))};
}

}  // namespace vmbfs
