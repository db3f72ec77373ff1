#include "hyperv/link/link_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

using Socket = boost::asio::local::stream_protocol::socket;

// Room for exactly kLinkDescriptorsMax: the kernel closes what does not fit
// and says so with MSG_CTRUNC.
struct ControlBuffer {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kLinkDescriptorsMax)> bytes{};
};

// Takes ownership of every descriptor of `message`, whatever else is wrong.
void TakeDescriptors(msghdr& message, const std::shared_ptr<FdCloser>& closer,
                     std::vector<UniqueFd>& descriptors) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      descriptors.emplace_back(fd, closer);
    }
  }
}

// "Try again later" as a status of its own kind, within this file.
absl::Status WouldBlock() { return absl::UnavailableError("would block"); }
bool IsWouldBlock(const absl::Status& status) { return absl::IsUnavailable(status); }

// How a connection ends in the ordinary way: no error.
absl::Status Closed() { return absl::CancelledError("the VMM closed the connection"); }

absl::Status SystemError(const char* what) {
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return WouldBlock();
  // What we sent last was not read any more.
  if (errno == ECONNRESET || errno == EPIPE) return Closed();
  return absl::AbortedError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::shared_ptr<LinkConnection>> LinkConnection::Create(
    const boost::asio::any_io_executor& executor, UniqueFd socket,
    const LinkConnectionOptions& options) {
  auto connection = std::make_shared<LinkConnection>(executor, options);
  boost::system::error_code error;
  connection->socket_.assign(boost::asio::local::stream_protocol(), socket.get(), error);
  if (error) return absl::InternalError(absl::StrCat("socket: ", error.message()));
  (void)socket.release();  // the Asio socket's now
  return connection;
}

LinkConnection::LinkConnection(const boost::asio::any_io_executor& executor,
                               const LinkConnectionOptions& options)
    : executor_(executor),
      options_(options),
      socket_(executor),
      first_frame_timer_(executor),
      output_timer_(executor) {}

LinkConnection::~LinkConnection() { Close(); }

void LinkConnection::Start(std::weak_ptr<Handler> handler) {
  handler_ = std::move(handler);
  WaitReadable();
  WaitFirstFrame();
}

bool LinkConnection::PeerIsGone() {
  if (!open_) return true;
  pollfd state{.fd = socket_.native_handle(), .events = 0, .revents = 0};
  return ::poll(&state, 1, 0) == 1 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

void LinkConnection::Close() {
  open_ = false;
  output_.clear();
  frame_ = {};
  first_frame_timer_.cancel();
  output_timer_.cancel();
  boost::system::error_code ignored;
  socket_.close(ignored);
}

void LinkConnection::WaitReadable() {
  socket_.async_wait(Socket::wait_read,
                     [weak = weak_from_this()](const boost::system::error_code& error) {
                       if (const auto self = weak.lock(); self && !error) self->Receive();
                     });
}

void LinkConnection::WaitFirstFrame() {
  first_frame_timer_.expires_after(options_.first_frame_timeout);
  first_frame_timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->first_frame_came_) return;
    self->Break(absl::InvalidArgumentError(
        absl::StrCat("no HELLO came within ", self->options_.first_frame_timeout.count(), " ms")));
  });
}

void LinkConnection::Receive() {
  for (int frames = 0; open_ && !broken_ && frames < kFramesPerTurn;) {
    if (!HasRoom()) {
      reading_held_ = true;  // Flush goes on
      return;
    }
    const size_t received_before = header_received_;
    const Progress progress = ReceiveSome();
    if (progress == Progress::kBroken) return;
    if (progress == Progress::kWouldBlock) break;
    if (received_before != 0 && header_received_ == 0) ++frames;  // one was handed on
  }
  if (open_ && !broken_) WaitReadable();
}

LinkConnection::Progress LinkConnection::ReceiveSome() {
  // Descriptors ride with the first byte of a header, so that byte is received
  // alone: the kernel joins earlier bytes without descriptors to later ones
  // with, never the other way round.
  std::span<std::byte> to;
  if (header_received_ == 0) {
    to = std::span(header_bytes_).first(1);
  } else if (header_received_ < header_bytes_.size()) {
    to = std::span(header_bytes_).subspan(header_received_);
  } else {
    to = std::span(frame_.payload).subspan(payload_received_);
  }
  const absl::StatusOr<size_t> received = ReceiveBytes(to);
  if (!received.ok()) {
    if (IsWouldBlock(received.status())) return Progress::kWouldBlock;
    Break(received.status());
    return Progress::kBroken;
  }
  if (header_received_ < header_bytes_.size()) {
    header_received_ += *received;
    if (header_received_ < header_bytes_.size()) return Progress::kMore;
    if (TakeHeader() == Progress::kBroken) return Progress::kBroken;
  } else {
    payload_received_ += *received;
  }
  if (payload_received_ == frame_.payload.size()) TakeFrame();
  return Progress::kMore;
}

LinkConnection::Progress LinkConnection::TakeHeader() {
  absl::StatusOr<LinkHeader> header = ParseLinkHeader(header_bytes_);
  if (header.ok() && header->descriptor_count != frame_.descriptors.size()) {
    header = absl::InvalidArgumentError(absl::StrCat(header->rule->name, " announces ",
                                                     header->descriptor_count, " descriptors; ",
                                                     frame_.descriptors.size(), " came with it"));
  }
  if (!header.ok()) {
    Break(header.status());
    return Progress::kBroken;
  }
  frame_.header = *header;
  frame_.payload.resize(header->payload_bytes);  // at most kLinkPayloadBytesMax
  payload_received_ = 0;
  return Progress::kMore;
}

void LinkConnection::TakeFrame() {
  header_received_ = 0;
  payload_received_ = 0;
  if (!std::exchange(first_frame_came_, true)) first_frame_timer_.cancel();
  LinkFrame frame = std::exchange(frame_, LinkFrame{});
  if (const std::shared_ptr<Handler> handler = handler_.lock()) handler->OnFrame(std::move(frame));
}

absl::StatusOr<size_t> LinkConnection::ReceiveBytes(std::span<std::byte> to) {
  ControlBuffer control;
  iovec piece{to.data(), to.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes.data();
  message.msg_controllen = control.bytes.size();
  const ssize_t bytes =
      ::recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (bytes < 0) return SystemError("receiving from the VMM");
  const size_t descriptors_before = frame_.descriptors.size();
  TakeDescriptors(message, options_.closer, frame_.descriptors);
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a control message was cut short: more than ",
                                                   kLinkDescriptorsMax,
                                                   " descriptors, or no room for them here"));
  }
  if (header_received_ != 0 && frame_.descriptors.size() != descriptors_before) {
    return absl::InvalidArgumentError("descriptors came elsewhere than with a header's first byte");
  }
  if (frame_.descriptors.size() != descriptors_before && options_.closer != nullptr &&
      !options_.closer->HasRoom()) {
    return absl::ResourceExhaustedError("too many descriptors of the VMM's wait to be closed");
  }
  if (bytes == 0) return Closed();
  return static_cast<size_t>(bytes);
}

void LinkConnection::Send(std::vector<std::byte> frame, UniqueFd descriptor) {
  if (!open_) return;
  if (output_.size() >= kOutputFramesMax) {
    BreakLater(absl::ResourceExhaustedError(
        absl::StrCat("the VMM left ", kOutputFramesMax, " frames unread")));
    return;
  }
  output_.push_back({.bytes = std::move(frame), .sent = 0, .descriptor = std::move(descriptor)});
  if (!wait_writable_) Flush();
}

void LinkConnection::Flush() {
  while (open_ && !output_.empty()) {
    Output& output = output_.front();
    const absl::StatusOr<size_t> sent = SendBytes(output);
    if (!sent.ok()) {
      if (IsWouldBlock(sent.status())) {
        WaitWritable();
      } else {
        BreakLater(sent.status());
      }
      return;
    }
    if (*sent > 0) output.descriptor.reset();  // it went with the first byte
    output.sent += *sent;
    if (output.sent == output.bytes.size()) output_.pop_front();
  }
}

absl::StatusOr<size_t> LinkConnection::SendBytes(Output& output) {
  ControlBuffer control;
  iovec piece{output.bytes.data() + output.sent, output.bytes.size() - output.sent};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (output.descriptor) {
    message.msg_control = control.bytes.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = output.descriptor.get();
    std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  }
  const ssize_t bytes = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (bytes < 0) return SystemError("sending to the VMM");
  return static_cast<size_t>(bytes);
}

void LinkConnection::WaitWritable() {
  wait_writable_ = true;
  WaitOutput();
  socket_.async_wait(Socket::wait_write,
                     [weak = weak_from_this()](const boost::system::error_code& error) {
                       const auto self = weak.lock();
                       if (!self || error) return;
                       self->wait_writable_ = false;
                       const bool was_full = !self->HasRoom();
                       self->Flush();
                       if (!self->open_ || !self->HasRoom()) return;
                       if (std::exchange(self->reading_held_, false)) self->WaitReadable();
                       const auto handler = self->handler_.lock();
                       if (was_full && handler) handler->OnRoom();
                     });
}

// A new wait ends the one before: while frames wait, it begins anew whenever
// the socket had room.
void LinkConnection::WaitOutput() {
  output_timer_.expires_after(options_.output_timeout);
  output_timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || !self->wait_writable_) return;
    self->Break(absl::DeadlineExceededError(
        absl::StrCat("the VMM read nothing for ", self->options_.output_timeout.count(), " ms")));
  });
}

void LinkConnection::Break(const absl::Status& reason) {
  if (!open_ || broken_) return;
  broken_ = true;
  if (const std::shared_ptr<Handler> handler = handler_.lock()) handler->OnBroken(reason);
}

void LinkConnection::BreakLater(const absl::Status& reason) {
  boost::asio::post(executor_, [weak = weak_from_this(), reason] {
    if (const auto self = weak.lock()) self->Break(reason);
  });
}

}  // namespace vmbfs::hyperv
