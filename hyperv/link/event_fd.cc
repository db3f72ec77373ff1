#include "hyperv/link/event_fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

// Takes the count, if there is one. RWF_NOWAIT: O_NONBLOCK may have been
// cleared, and the count taken, by the other side since the descriptor was
// found readable.
void Drain(int fd) {
  uint64_t count = 0;
  iovec piece{&count, sizeof(count)};
  [[maybe_unused]] const ssize_t bytes = ::preadv2(fd, &piece, 1, -1, RWF_NOWAIT);
}

}  // namespace

absl::StatusOr<UniqueFd> CreateEventFd() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (fd) return fd;
  return absl::ResourceExhaustedError(absl::StrCat("eventfd: ", std::strerror(errno)));
}

absl::StatusOr<UniqueFd> DuplicateFd(const UniqueFd& fd) {
  UniqueFd duplicate(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (duplicate) return duplicate;
  return absl::ResourceExhaustedError(
      absl::StrCat("duplicating a descriptor: ", std::strerror(errno)));
}

absl::Status CheckEventFd(const UniqueFd& fd) {
  const std::string link = absl::StrCat("/proc/self/fd/", fd.get());
  std::array<char, 128> target{};
  const ssize_t bytes = ::readlink(link.c_str(), target.data(), target.size());
  const std::string kind(target.data(), bytes < 0 ? 0 : static_cast<size_t>(bytes));
  if (kind != "anon_inode:[eventfd]") {
    return absl::InvalidArgumentError(
        absl::StrCat("descriptor is '", absl::CHexEscape(kind), "', not an eventfd"));
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) < 0) {
    return absl::InvalidArgumentError(absl::StrCat("O_NONBLOCK: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

void NotifyEventFd(const UniqueFd& fd) {
  pollfd room{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t bytes = ::write(fd.get(), &one, sizeof(one));
}

absl::StatusOr<std::shared_ptr<EventWaiter>> EventWaiter::Start(
    const boost::asio::any_io_executor& executor, UniqueFd fd, std::function<void()> on_event) {
  auto waiter = std::make_shared<EventWaiter>(executor, std::move(on_event));
  boost::system::error_code error;
  waiter->descriptor_.assign(fd.get(), error);
  if (error) return absl::InternalError(absl::StrCat("waiting for an eventfd: ", error.message()));
  (void)fd.release();  // the descriptor's now
  waiter->Wait();
  return waiter;
}

EventWaiter::EventWaiter(const boost::asio::any_io_executor& executor,
                         std::function<void()> on_event)
    : descriptor_(executor), on_event_(std::move(on_event)) {}

EventWaiter::~EventWaiter() {
  boost::system::error_code ignored;
  descriptor_.close(ignored);
}

void EventWaiter::Wait() {
  descriptor_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                         [weak = weak_from_this()](const boost::system::error_code& error) {
                           const std::shared_ptr<EventWaiter> self = weak.lock();
                           if (error || self == nullptr) return;
                           Drain(self->descriptor_.native_handle());
                           self->on_event_();
                           self->Wait();
                         });
}

}  // namespace vmbfs::hyperv
