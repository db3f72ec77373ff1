#include "hyperv/link/link_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/file_descriptor/unique_fd.h"
#include "hyperv/link/link_channels.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/link_session.h"

namespace vmbfs::hyperv {
namespace {

using Acceptor = boost::asio::local::stream_protocol::acceptor;

constexpr size_t kDevicesMax = 2047;  // channel ids of a VMBus
constexpr int kBacklog = 16;
constexpr std::chrono::milliseconds kAcceptRetry{100};

absl::Status SystemError(const std::string& path, const char* what, int error) {
  const std::string text = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(text)
                                           : absl::InternalError(text);
}

// REQUIRES: path is at most kSocketPathBytesMax bytes.
sockaddr_un Address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

absl::StatusOr<UniqueFd> NewSocket(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd) return fd;
  return SystemError(path, "socket", errno);
}

// Removes a socket file that nobody listens on; leaves anything else alone.
absl::Status RemoveStaleSocket(const std::string& path) {
  struct stat file{};
  if (::lstat(path.c_str(), &file) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError(path, "looking it up", errno);
  }
  if (!S_ISSOCK(file.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " exists and is no socket"));
  }
  const absl::StatusOr<UniqueFd> probe = NewSocket(path);
  if (!probe.ok()) return probe.status();
  const sockaddr_un address = Address(path);
  const int result = ::connect(probe->get(), Generic(address), sizeof(address));
  if (result == 0 || errno == EAGAIN) {  // EAGAIN: its backlog is full
    return absl::FailedPreconditionError(absl::StrCat("another process listens on ", path));
  }
  if (errno != ECONNREFUSED && errno != ENOENT) return SystemError(path, "connecting", errno);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return SystemError(path, "removing a stale socket", errno);
  }
  return absl::OkStatus();
}

// Binds and listens; the file is never open to more than mode 0600.
absl::StatusOr<UniqueFd> BindAndListen(const LinkOptions& options) {
  const std::string& path = options.socket_path;
  absl::StatusOr<UniqueFd> socket = NewSocket(path);
  if (!socket.ok()) return socket.status();
  if (::fchmod(socket->get(), 0600) != 0) return SystemError(path, "setting its mode", errno);
  const sockaddr_un address = Address(path);
  if (::bind(socket->get(), Generic(address), sizeof(address)) != 0) {
    return SystemError(path, "binding", errno);
  }
  absl::Status status;
  if (options.owner_uid && ::lchown(path.c_str(), *options.owner_uid, gid_t(-1)) != 0) {
    status = SystemError(path, "setting its owner", errno);
  } else if (::listen(socket->get(), kBacklog) != 0) {
    status = SystemError(path, "listening", errno);
  }
  if (status.ok()) return socket;
  ::unlink(path.c_str());
  return status;
}

// The file's identity, so that Stop does not remove a successor's socket.
std::pair<dev_t, ino_t> FileIdentity(const std::string& path) {
  struct stat file{};
  if (::lstat(path.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino};
}

bool SameChannel(const ChannelOffer& a, const ChannelOffer& b) {
  return a.interface_id == b.interface_id && a.instance_id == b.instance_id &&
         a.subchannel_index == b.subchannel_index;
}

}  // namespace

class LinkServer::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(boost::asio::any_io_executor strand, Spinner* spinner)
      : strand_(std::move(strand)), acceptor_(strand_), accept_timer_(strand_) {
    if (spinner != nullptr && spinner->options().on()) shared_->spinner = spinner;
  }

  absl::Status Listen(const LinkOptions& options);
  void Accept();
  void Stop();
  absl::Status Add(std::shared_ptr<ChannelDevice> device);
  bool IsOpen(const ChannelDevice& device) const;
  void SetOpenAllowed(const ChannelDevice& device, bool allowed);
  void Remove(const ChannelDevice& device);
  LinkStatus status() const;

 private:
  std::shared_ptr<LinkDevice> Find(const ChannelDevice& device) const;
  void TakeConnection();
  void AcceptAgainLater();
  void Welcome(UniqueFd socket);
  void TurnAway(const UniqueFd& socket, LinkError code, const std::string& reason);

  const boost::asio::any_io_executor strand_;
  LinkOptions options_;
  Acceptor acceptor_;
  boost::asio::steady_timer accept_timer_;
  std::pair<dev_t, ino_t> file_;
  bool listening_ = false;
  std::vector<std::shared_ptr<LinkDevice>> devices_;
  std::shared_ptr<LinkSession> session_;
  pid_t peer_pid_ = 0;
  uint64_t connections_ = 0;
  uint64_t connections_refused_ = 0;
  const std::shared_ptr<LinkShared> shared_ = std::make_shared<LinkShared>();
};

absl::Status LinkServer::Impl::Listen(const LinkOptions& options) {
  const std::string& path = options.socket_path;
  if (path.empty() || path.size() > kSocketPathBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("socket path of ", path.size(), " bytes; 1 to ",
                                                   kSocketPathBytesMax, " are possible: ", path));
  }
  if (absl::Status status = RemoveStaleSocket(path); !status.ok()) return status;
  absl::StatusOr<UniqueFd> socket = BindAndListen(options);
  if (!socket.ok()) return socket.status();
  boost::system::error_code error;
  acceptor_.assign(boost::asio::local::stream_protocol(), socket->get(), error);
  if (error) {
    ::unlink(path.c_str());
    return absl::InternalError(absl::StrCat(path, ": ", error.message()));
  }
  (void)socket->release();  // the acceptor's now
  options_ = options;
  shared_->on_fault = options.on_fault;
  shared_->on_open_refused = options.on_open_refused;
  shared_->connection = options.connection;
  shared_->memory.allow_unsealed = options.allow_unsealed_memory;
  shared_->monitored = options.monitored;
  file_ = FileIdentity(path);
  listening_ = true;
  return absl::OkStatus();
}

void LinkServer::Impl::Accept() {
  if (!listening_) return;
  acceptor_.async_wait(Acceptor::wait_read,
                       [weak = weak_from_this()](const boost::system::error_code& error) {
                         if (const auto self = weak.lock(); self && !error) self->TakeConnection();
                       });
}

void LinkServer::Impl::TakeConnection() {
  if (!listening_) return;
  UniqueFd socket(
      ::accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket) {
    Welcome(std::move(socket));
  } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
    shared_->last_error = absl::StrCat("accepting a connection: ", std::strerror(errno));
    AcceptAgainLater();  // the connection waits, so the wait would end at once
    return;
  }
  Accept();
}

void LinkServer::Impl::AcceptAgainLater() {
  accept_timer_.expires_after(kAcceptRetry);
  accept_timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    if (const auto self = weak.lock(); self && !error) self->Accept();
  });
}

void LinkServer::Impl::Welcome(UniqueFd socket) {
  ucred peer{};
  socklen_t peer_bytes = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &peer_bytes) != 0) return;
  if (peer.uid != ::geteuid() && peer.uid != 0 && peer.uid != options_.owner_uid) {
    TurnAway(socket, LinkError::kNotPermitted,
             absl::StrCat("user ", peer.uid, " may not use this link"));
    return;
  }
  if (shared_->connection.closer != nullptr && !shared_->connection.closer->HasRoom()) {
    TurnAway(socket, LinkError::kBusy,
             "too many descriptors of earlier connections wait to be closed");
    return;
  }
  if (session_ && session_->PeerIsGone()) {  // it reconnects before its end was read
    session_->End(absl::CancelledError("the VMM closed the connection"));
    session_.reset();
  }
  if (session_) {
    TurnAway(socket, LinkError::kBusy,
             absl::StrCat("another connection, of process ", peer_pid_, ", lives"));
    return;
  }
  absl::StatusOr<std::shared_ptr<LinkSession>> session =
      LinkSession::Start(strand_, std::move(socket), shared_, devices_,
                         [weak = weak_from_this(), connection = connections_ + 1] {
                           const auto self = weak.lock();
                           if (self && self->connections_ == connection) self->session_.reset();
                         });
  if (!session.ok()) {
    shared_->last_error = std::string(session.status().message());
    return;
  }
  ++connections_;
  peer_pid_ = peer.pid;
  session_ = *std::move(session);
}

void LinkServer::Impl::TurnAway(const UniqueFd& socket, LinkError code, const std::string& reason) {
  ++connections_refused_;
  shared_->last_error = reason;
  const std::vector<std::byte> frame = BuildError(LinkType::kHello, 0, code, reason);
  [[maybe_unused]] const ssize_t sent =
      ::send(socket.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void LinkServer::Impl::Stop() {
  if (session_) session_->End(absl::CancelledError("the link was stopped"));
  session_.reset();
  accept_timer_.cancel();
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  if (std::exchange(listening_, false) && FileIdentity(options_.socket_path) == file_) {
    ::unlink(options_.socket_path.c_str());
  }
}

std::shared_ptr<LinkDevice> LinkServer::Impl::Find(const ChannelDevice& device) const {
  for (const std::shared_ptr<LinkDevice>& held : devices_) {
    if (held->device.get() == &device) return held;
  }
  return nullptr;
}

absl::Status LinkServer::Impl::Add(std::shared_ptr<ChannelDevice> device) {
  for (const std::shared_ptr<LinkDevice>& held : devices_) {
    if (SameChannel(held->device->offer(), device->offer())) {
      return absl::AlreadyExistsError("a device with this interface and instance is there already");
    }
  }
  if (devices_.size() >= kDevicesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("a VM has at most ", kDevicesMax, " devices"));
  }
  auto added = std::make_shared<LinkDevice>();
  added->device = std::move(device);
  if (session_) {
    if (absl::Status status = session_->AddDevice(added); !status.ok()) return status;
  }
  devices_.push_back(std::move(added));
  return absl::OkStatus();
}

bool LinkServer::Impl::IsOpen(const ChannelDevice& device) const {
  const std::shared_ptr<LinkDevice> held = Find(device);
  return held && session_ && session_->IsOpen(*held);
}

void LinkServer::Impl::SetOpenAllowed(const ChannelDevice& device, bool allowed) {
  if (const std::shared_ptr<LinkDevice> held = Find(device)) held->open_allowed = allowed;
}

void LinkServer::Impl::Remove(const ChannelDevice& device) {
  const std::shared_ptr<LinkDevice> held = Find(device);
  if (!held) return;
  std::erase(devices_, held);
  if (session_) session_->RemoveDevice(*held);
}

LinkStatus LinkServer::Impl::status() const {
  LinkStatus status;
  status.socket_path = options_.socket_path;
  status.listening = listening_;
  status.connections = connections_;
  status.connections_refused = connections_refused_;
  status.last_error = shared_->last_error;
  status.posts = shared_->posts;
  status.frames_received = shared_->frames_received;
  status.frames_refused = shared_->frames_refused;
  status.monitor_polls = shared_->monitor_polls;
  status.monitor_signals = shared_->monitor_signals;
  for (const std::shared_ptr<LinkDevice>& held : devices_) {
    LinkChannelStatus& channel = status.channels.emplace_back();
    channel.device = held->device.get();
    channel.fault = held->fault;
    channel.faults = held->faults;
    channel.doorbells = held->doorbells;
    channel.signals = held->signals;
  }
  if (session_) {
    status.peer_pid = peer_pid_;
    session_->Describe(status);
  }
  return status;
}

LinkServer::LinkServer(boost::asio::any_io_executor strand, Spinner* spinner)
    : impl_(std::make_shared<Impl>(std::move(strand), spinner)) {}
LinkServer::~LinkServer() = default;
absl::Status LinkServer::Listen(const LinkOptions& options) { return impl_->Listen(options); }
void LinkServer::Start() { impl_->Accept(); }
void LinkServer::Stop() { impl_->Stop(); }
absl::Status LinkServer::Add(std::shared_ptr<ChannelDevice> device) {
  return impl_->Add(std::move(device));
}
bool LinkServer::IsOpen(const ChannelDevice& device) const { return impl_->IsOpen(device); }
void LinkServer::SetOpenAllowed(const ChannelDevice& device, bool allowed) {
  impl_->SetOpenAllowed(device, allowed);
}
void LinkServer::Remove(const ChannelDevice& device) { impl_->Remove(device); }
LinkStatus LinkServer::status() const { return impl_->status(); }

}  // namespace vmbfs::hyperv
