// A file of the host, read through its page cache.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/backing/backing.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {

// Shows the size the file had when it was opened, whatever becomes of it: what
// was added later is not served, and where bytes are missing reads fail with
// kDataLoss. Who needs more gives a file that nobody writes to.
//
// Thread safety: any thread.
class HostFile final : public File {
 public:
  // Takes a descriptor that can be read.
  // Errors: kInvalidArgument  not a regular file;
  //         kInternal         the system's own reason.
  static absl::StatusOr<std::unique_ptr<HostFile>> Create(hyperv::UniqueFd fd);

  uint64_t size_bytes() const override { return size_bytes_; }
  // Gives what is in the page cache. kUnavailable also where the file system
  // cannot tell what is.
  absl::StatusOr<size_t> ReadNow(uint64_t offset, std::span<const iovec> pieces) const override;
  absl::StatusOr<size_t> ReadBlocking(uint64_t offset, std::span<std::byte> out) const override;
  // Asks the kernel to bring them into the page cache.
  void ReadAhead(uint64_t offset, uint64_t bytes) const override;

 private:
  HostFile(hyperv::UniqueFd fd, uint64_t size_bytes)
      : fd_(std::move(fd)), size_bytes_(size_bytes) {}

  const hyperv::UniqueFd fd_;
  const uint64_t size_bytes_;
  // Cleared for good when the file system says that it knows no RWF_NOWAIT.
  mutable std::atomic<bool> read_now_supported_{true};
};

}  // namespace vmbfs
