// One owned file descriptor.

#pragma once

#include <unistd.h>

#include <memory>
#include <utility>

#include "hyperv/file_descriptor/fd_closer.h"

namespace vmbfs::hyperv {

// Owns a file descriptor and closes it once: itself, or through the closer that
// it was made with. An empty one holds -1.
//
// Thread safety: none, as an int.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd, std::shared_ptr<FdCloser> closer = nullptr)
      : fd_(fd), closer_(std::move(closer)) {}
  UniqueFd(UniqueFd&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), closer_(std::move(other.closer_)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset(std::exchange(other.fd_, -1));
      closer_ = std::move(other.closer_);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // What it owns from now on is closed in place.
  void reset(int fd = -1) {
    if (fd_ >= 0) {
      if (closer_ != nullptr) {
        closer_->Close(fd_);
      } else {
        ::close(fd_);
      }
    }
    fd_ = fd;
    closer_.reset();
  }

 private:
  int fd_ = -1;
  std::shared_ptr<FdCloser> closer_;
};

}  // namespace vmbfs::hyperv
