// Closes on the blocking pool what the VMM of one VM passed.

#pragma once

#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <memory>

#include "hyperv/file_descriptor/fd_closer.h"

namespace vmbfs {

// Thread safety: any.
// Ownership: may be destroyed with descriptors waiting; they are closed all the
// same, those that come after the pool was joined when the pool is destroyed.
// Bounds: one thread of the pool at a time, so that descriptors that nobody lets
// be closed cost the other VMs no more than that. HasRoom for fewer than
// kWaitingMax; what comes then waits too, and it is for the link to take no more.
class PoolFdCloser final : public hyperv::FdCloser {
 public:
  // More than a connection's 256 memory regions, which come at its end all at once.
  static constexpr size_t kWaitingMax = 1024;

  // REQUIRES: `pool` outlives it.
  explicit PoolFdCloser(boost::asio::thread_pool& pool);
  ~PoolFdCloser() override;

  void Close(int fd) override;
  bool HasRoom() const override;

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace vmbfs
