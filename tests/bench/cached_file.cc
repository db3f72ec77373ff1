#include "tests/bench/cached_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"

namespace vmbfs::bench {

absl::StatusOr<CachedFile> CachedFile::Open(const std::string& path) {
  hyperv::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  if (fd.get() < 0 || ::fstat(fd.get(), &status) != 0) return absl::ErrnoToStatus(errno, path);
  const size_t size = static_cast<size_t>(status.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, path);
  return CachedFile(std::move(fd), {static_cast<const std::byte*>(memory), size});
}

CachedFile::CachedFile(hyperv::UniqueFd fd, std::span<const std::byte> bytes)
    : fd_(std::move(fd)), bytes_(bytes) {}

CachedFile::CachedFile(CachedFile&& other) noexcept
    : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}

CachedFile::~CachedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

bool CachedFile::ReadCached(uint64_t offset, std::span<std::byte> out) const {
  const iovec piece{out.data(), out.size()};
  const off_t at = static_cast<off_t>(offset);
  ssize_t got = ::preadv2(fd_.get(), &piece, 1, at, RWF_NOWAIT);
  if (got < 0 && errno == EOPNOTSUPP) got = ::preadv(fd_.get(), &piece, 1, at);
  return got == static_cast<ssize_t>(out.size());
}

}  // namespace vmbfs::bench
