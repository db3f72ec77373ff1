// Eventfds that cross the link: made here or received, written and drained
// without ever blocking.
//
// Trust: the VMM holds the other end of each. It may clear O_NONBLOCK (a flag
// that all holders share), fill or drain the counter at any moment; none of
// that may block or fail a strand.

#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::hyperv {

// A new eventfd with counter 0. Errors: kResourceExhausted.
absl::StatusOr<UniqueFd> CreateEventFd();

// Another descriptor for the same eventfd. Errors: kResourceExhausted.
absl::StatusOr<UniqueFd> DuplicateFd(const UniqueFd& fd);

// Makes sure that a received descriptor is an eventfd, and sets O_NONBLOCK.
// Errors: kInvalidArgument with what it is instead.
absl::Status CheckEventFd(const UniqueFd& fd);

// Adds 1 to the counter; does nothing when it is full (the event is pending
// already).
void NotifyEventFd(const UniqueFd& fd);

// Takes an eventfd's count and calls back, again and again.
//
// Thread safety: `executor`, which runs one thing at a time, for all calls and
// the callback.
// Ownership: whoever holds the pointer; once let go of, it calls no more.
class EventWaiter : public std::enable_shared_from_this<EventWaiter> {
 public:
  // Errors: kInternal when the descriptor cannot be waited for.
  static absl::StatusOr<std::shared_ptr<EventWaiter>> Start(
      const boost::asio::any_io_executor& executor, UniqueFd fd, std::function<void()> on_event);

  EventWaiter(const boost::asio::any_io_executor& executor, std::function<void()> on_event);
  ~EventWaiter();

 private:
  void Wait();

  boost::asio::posix::stream_descriptor descriptor_;
  std::function<void()> on_event_;
};

}  // namespace vmbfs::hyperv
