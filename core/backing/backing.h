// What a device reads from: an unchanging view of names and bytes.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/path/guest_path.h"

namespace vmbfs {

// One file or directory of a backing.
//
// Thread safety: const and immutable; any thread.
class File {
 public:
  virtual ~File() = default;

  virtual bool is_directory() const { return false; }
  virtual uint64_t size_bytes() const = 0;

  // Reads at `offset` into `pieces` without waiting for a disk, and returns
  // the bytes read: fewer than asked where the rest is not at hand or the file
  // ends there. Does not allocate. The pieces may be memory that a guest
  // writes to; nothing is read back from them.
  // REQUIRES: offset < size_bytes(); not a directory.
  //
  // Errors: kUnavailable  nothing is at hand, or a piece is memory that vanished:
  //                       use ReadBlocking on a thread that may wait, and copy.
  //                       (Carries no message.)
  //         other         the host's own fault.
  virtual absl::StatusOr<size_t> ReadNow(uint64_t offset, std::span<const iovec> pieces) const = 0;

  // The same for threads that may wait; reads until `out` is full or the file
  // ends.
  virtual absl::StatusOr<size_t> ReadBlocking(uint64_t offset, std::span<std::byte> out) const = 0;

  // For threads that may wait: these bytes will be read soon. Best effort.
  virtual void ReadAhead(uint64_t offset, uint64_t bytes) const { (void)offset, (void)bytes; }
};

// A tree of files that never changes once made: a swap makes another one.
//
// Thread safety: const; any thread.
class Backing {
 public:
  virtual ~Backing() = default;

  // The file or directory at `path`; null when there is none. Does not block
  // or allocate. The root is always a directory. The pointer lives as long as
  // the backing.
  virtual const File* Find(const GuestPath& path) const = 0;

  // For administrators: "file imc.hiv, 65536 bytes, sha256 ab12…".
  virtual std::string Describe() const = 0;
};

}  // namespace vmbfs
