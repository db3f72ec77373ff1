// Where descriptors are closed whose closing may have to wait.

#pragma once

namespace vmbfs::hyperv {

// A descriptor that somebody else gave may be a file on a file system of his own
// (FUSE), which decides how long close() takes. One thread serves many VMs, so
// such a descriptor is closed elsewhere.
//
// Thread safety: any.
class FdCloser {
 public:
  virtual ~FdCloser() = default;

  // Takes the descriptor, and closes it now or later. Does not block.
  virtual void Close(int fd) = 0;

  // Whether few enough wait to be closed that more may be accepted from the
  // one who gave them.
  virtual bool HasRoom() const = 0;
};

}  // namespace vmbfs::hyperv
