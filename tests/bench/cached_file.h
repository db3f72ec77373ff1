// The file that the daemon serves, as this process reads it itself: the limits
// are measured on the same pages of the page cache.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::bench {

// Thread safety: any thread.
class CachedFile {
 public:
  // Opens, maps and touches every page.
  static absl::StatusOr<CachedFile> Open(const std::string& path);
  CachedFile(CachedFile&& other) noexcept;
  CachedFile& operator=(CachedFile&&) = delete;
  ~CachedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  uint64_t size_bytes() const { return bytes_.size(); }
  // preadv2 with RWF_NOWAIT, as the data plane reads; plain where the file
  // system lacks it. False when not all of `out` was filled.
  bool ReadCached(uint64_t offset, std::span<std::byte> out) const;

 private:
  CachedFile(hyperv::UniqueFd fd, std::span<const std::byte> bytes);

  hyperv::UniqueFd fd_;
  std::span<const std::byte> bytes_;
};

}  // namespace vmbfs::bench
